package soak

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	// kept sessions must not notice that descriptors run out, comers are those who come meanwhile.
	kept, comers = 50, 300
	// watched is for how long it is watched what the lack costs.
	watched = 2 * time.Second
	// mostUsed is how much of a processor pgporter may use while it can't accept anybody.
	mostUsed = 0.2
)

// complaint is what pgporter's log says when it can't accept.
const complaint = "cannot accept clients"

// scarce takes all descriptors away from a pgporter that runs: first the last one, then all but one, so that clients are
// accepted and no server can be connected.
func (r *rig) scarce(ctx context.Context) error {
	before, err := r.quiet(ctx, nil)
	if err != nil {
		return err
	}
	if _, err := r.have(Task{Do: Hold, Address: r.address(idlePort), Count: kept}); err != nil {
		return err
	}
	// Nobody may ask for the status meanwhile: that takes a descriptor as well.
	restore, err := r.porter.leave(0)
	if err != nil {
		return err
	}
	used, lines, err := r.lack(ctx)
	if err != nil {
		return errors.Join(err, restore())
	}
	r.say("scarce: no descriptor left: %d clients wait in the backlog, %d sessions go on, pgporter uses %.1f %% of a processor and logs %d lines in %s",
		comers, kept, 100*used, lines, watched)
	if err := restore(); err != nil {
		return err
	}
	served, err := r.have(Task{Do: Harvest})
	if err != nil {
		return err
	}
	err = errors.Join(check("of those who waited, served", served.Served, comers), check("of those who waited, refused", served.Refused, 0))
	if _, dropErr := r.have(Task{Do: Drop}); dropErr != nil {
		return errors.Join(err, dropErr)
	}
	r.say("scarce: descriptors are back: all %d are served", served.Served)
	if _, quietErr := r.quiet(ctx, nil); quietErr != nil {
		return errors.Join(err, quietErr)
	}

	if restore, leaveErr := r.porter.leave(1); leaveErr != nil {
		return errors.Join(err, leaveErr)
	} else if _, leaveErr = r.have(Task{Do: Crowd, Address: r.address(idlePort), Count: kept}); leaveErr != nil {
		return errors.Join(err, leaveErr, restore())
	} else {
		refused, refusedErr := r.have(Task{Do: Harvest})
		err = errors.Join(err, restore(), refusedErr, check("with one descriptor left, refused with 53300", refused.Refused, kept))
		r.say("scarce: one descriptor left, so that no server can be connected: %d of %d clients are told 53300", refused.Refused, kept)
	}
	after, quietErr := r.quiet(ctx, &state{before.files, before.goroutines, before.rss + memoryMargin})
	r.say("scarce: before: %s; after: %s", before, after)
	return errors.Join(err, quietErr)
}

// lack has clients come for whom there is no descriptor, and gives the part of a processor that this costs, and the lines in
// the log.
func (r *rig) lack(ctx context.Context) (used float64, lines int, err error) {
	complaints := r.porter.log.count(complaint)
	if _, err := r.have(Task{Do: Crowd, Address: r.address(idlePort), Count: comers}); err != nil {
		return 0, 0, err
	}
	if err := until(ctx, "the log tells", func() error {
		if r.porter.log.count(complaint) == complaints {
			return errors.New("no line " + complaint)
		}
		return nil
	}); err != nil {
		return 0, 0, err
	}
	from, err := r.porter.processorTime()
	if err != nil {
		return 0, 0, err
	}
	began := time.Now()
	select {
	case <-ctx.Done():
		return 0, 0, context.Cause(ctx)
	case <-time.After(watched):
	}
	to, err := r.porter.processorTime()
	if err != nil {
		return 0, 0, err
	}
	used = (to - from).Seconds() / time.Since(began).Seconds()
	lines = r.porter.log.count(complaint) - complaints
	if used > mostUsed {
		err = fmt.Errorf("pgporter uses %.0f %% of a processor while it can't accept anybody", 100*used)
	}
	if most := int(watched/time.Second) + 2; lines > most {
		err = errors.Join(err, fmt.Errorf("%d lines in the log, at most %d are expected", lines, most))
	}
	answers, askErr := r.have(Task{Do: Ask})
	return used, lines, errors.Join(err, askErr, check("sessions that go on", answers.Served, kept))
}

const (
	// fewFiles is the hard limit of open files of a pgporter that is to have too few, and mostInside how many clients it may
	// take with it: two descriptors each.
	fewFiles, mostInside = 512, fewFiles / 2
	// checkedFor is longer than silence has to last before the server counts as down.
	checkedFor = 4 * time.Second
)

// few starts a pgporter whose limit of open files is low, and lets more clients come than it has descriptors for. It has to
// keep enough for checks: else the server would count as down, and all sessions would end.
func few(ctx context.Context, c Config) (err error) {
	r, err := setUp(ctx, c, closely, fewFiles)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.tearDown()) }()
	if r.porter.log.count("LimitNOFILE=") != 1 {
		return fmt.Errorf("the log doesn't say that the services' limits take more open files:\n%s", r.porter.log)
	}
	soft, err := r.porter.filesLimit()
	if err != nil {
		return err
	}
	// Go goes one below the hard limit, to know later that it was Go who changed it.
	if soft < fewFiles-1 {
		return fmt.Errorf("its soft limit of open files is %d, the hard limit %d", soft, fewFiles)
	}
	if _, err := r.have(Task{Do: Crowd, Address: r.address(idlePort), Count: comers}); err != nil {
		return err
	}
	inside := 0
	for began := time.Now(); time.Since(began) < checkedFor; {
		s, err := r.porter.service(ctx, "idle")
		if err != nil {
			return err
		}
		if !s.Up {
			return fmt.Errorf("its server counts as down: %s", s.Servers[0].Reason)
		}
		if s.Sessions < inside {
			return fmt.Errorf("%d sessions are left of %d", s.Sessions, inside)
		}
		inside = s.Sessions
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(50 * time.Millisecond):
		}
	}
	if inside < mostInside/2 || inside > mostInside {
		return fmt.Errorf("%d clients are inside with a limit of %d open files", inside, fewFiles)
	}
	r.say("few: %d open files (it has raised its soft limit of %d): %d of %d clients are inside, the others wait in the backlog; all checks pass for %s",
		soft, fewFiles/2, inside, comers, checkedFor)
	// Those who are inside leave, others come in, until everybody has been.
	total := int64(0)
	if err := until(ctx, "everybody has been inside", func() error {
		_, askErr := r.have(Task{Do: Ask})
		dropped, err := r.have(Task{Do: Drop})
		total += dropped.Served
		return errors.Join(askErr, err, check("clients that were inside", total, comers))
	}); err != nil {
		return err
	}
	served, err := r.have(Task{Do: Harvest})
	if err != nil {
		return err
	}
	r.say("few: as they leave the others come in: %d of %d are served, %d are refused", served.Served, comers, served.Refused)
	return errors.Join(check("of those who came, served", served.Served, comers), r.strangers(), check("complaints in the log", int64(r.porter.log.count(complaint)), 0))
}

const (
	// guests come while strangers say nothing, more of them than there are places. One waits no longer for another service than
	// ownWait, and for the strangers' not longer than sameWait, though each of those may say nothing for a minute.
	guests            = 10
	ownWait, sameWait = 3 * time.Second, 20 * time.Second
)

// strangers has clients that say nothing come to one service, more than there are places, and then guests to another and to that one.
func (r *rig) strangers() error {
	mute, err := r.have(Task{Do: Mute, Address: r.address(rudePort), Count: comers})
	if err != nil {
		return err
	}
	// The others of those who are kept are counted, too.
	other, otherErr := r.have(Task{Do: Hold, Address: r.address(idlePort), Count: guests})
	same, sameErr := r.have(Task{Do: Hold, Address: r.address(rudePort), Count: guests})
	_, dropErr := r.have(Task{Do: Drop})
	err = errors.Join(otherErr, sameErr, dropErr, check("guests of another service, served", other.Served, mute.Served+guests),
		check("guests of the same, served", same.Served, mute.Served+2*guests))
	r.say("few: %d strangers say nothing at one service: %d guests of another are served within %s, %d of the same within %s", mute.Served,
		guests, other.Took.Round(time.Millisecond), guests, same.Took.Round(time.Millisecond))
	if other.Took > ownWait || same.Took > sameWait {
		err = errors.Join(err, fmt.Errorf("guests waited for %s and %s, %s and %s are the most", other.Took, same.Took, ownWait, sameWait))
	}
	return err
}
