package throughput

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/pgporter/pgporter/lab/bench/subject"
	"github.com/pgporter/pgporter/lab/fakepatroni"
)

// Where the etcd listens, and what Patroni does there by default: leases of so many seconds, and a loop each loopWait.
const (
	keysPort = 12379
	peerPort = 12380
	ttl      = 30
	loopWait = 10 * time.Second
)

// keys is an etcd with what the Patronis of the first cluster of a crowd keep there while it is quiet: the keys of the members and the
// leader, whose leases are renewed, and the position that the leader writes in each of its loops.
type keys struct {
	address string
	etcd    *subject.Process
	client  *clientv3.Client
	writer  sync.WaitGroup
	cancel  context.CancelFunc
}

// startKeys starts one on an address, with its data below a directory.
func startKeys(ctx context.Context, dir, address string) (*keys, error) {
	k := &keys{address: fmt.Sprintf("%s:%d", address, keysPort)}
	client, peer := "http://"+k.address, fmt.Sprintf("http://%s:%d", address, peerPort)
	command := exec.Command("etcd", "--name", "bench", "--data-dir", filepath.Join(dir, "etcd"), "--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "bench="+peer)
	var err error
	if k.etcd, err = subject.Start(command, filepath.Join(dir, "etcd.log"), syscall.SIGTERM); err != nil {
		return nil, err
	}
	ctx, k.cancel = context.WithCancel(ctx)
	if err := k.begin(ctx); err != nil {
		k.stop()
		return nil, err
	}
	return k, nil
}

// begin writes the keys and starts what renews them.
func (k *keys) begin(ctx context.Context) error {
	err := k.etcd.Await(ctx, 20*time.Second, func(ctx context.Context) error { return subject.Listens(ctx, k.address) })
	if err != nil {
		return err
	}
	if k.client, err = clientv3.New(clientv3.Config{Endpoints: []string{k.address}, DialTimeout: 5 * time.Second, Logger: zap.NewNop()}); err != nil {
		return err
	}
	name := fakepatroni.ClusterName(0)
	under := "/pg/" + name + "/"
	put := func(key, value string, options ...clientv3.OpOption) error {
		_, err := k.client.Put(ctx, under+key, value, options...)
		return err
	}
	for key, value := range map[string]string{
		"initialize": fakepatroni.SystemID(0), "config": fmt.Sprintf(`{"ttl":%d,"loop_wait":%.0f,"retry_timeout":10}`, ttl, loopWait.Seconds()), "history": "[]", "status": optime,
	} {
		if err := put(key, value); err != nil {
			return err
		}
	}
	for m := range fakepatroni.MembersOfCluster {
		lease, err := k.client.Grant(ctx, ttl)
		if err != nil {
			return err
		}
		if _, err := k.client.KeepAlive(ctx, lease.ID); err != nil { // each third of the ttl
			return err
		}
		at, member, role := fakepatroni.Address(0, m), fmt.Sprintf("%s-%d", name, m+1), "replica"
		if m == 0 {
			role = "primary"
			if err := put("leader", member, clientv3.WithLease(lease.ID)); err != nil {
				return err
			}
		}
		about := fmt.Sprintf(`{"conn_url":"postgres://%[1]s:%[2]d/postgres","api_url":"http://%[1]s:%[3]d/patroni","state":"running","role":"%[4]s","version":"4.0.4","xlog_location":83886080,"timeline":1}`,
			at, crowdPostgres, crowdPatroni, role)
		if err := put("members/"+member, about, clientv3.WithLease(lease.ID)); err != nil {
			return err
		}
	}
	k.writer.Go(func() {
		for pause(ctx, loopWait) == nil {
			put("status", optime) //nolint:errcheck // whatever etcd lacks shows in what it is measured for
		}
	})
	return nil
}

// optime is what the leader writes of its position.
const optime = `{"optime":83886080,"slots":{},"retain_slots":[]}`

func (k *keys) stop() {
	k.cancel()
	k.writer.Wait()
	if k.client != nil {
		k.client.Close() //nolint:errcheck // its etcd ends
	}
	k.etcd.Stop()
}
