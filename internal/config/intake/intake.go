// Package intake is how a plan comes to a node: an Order, which is a model.Plan with a word about where it came from, or a File,
// and the readers that admit them.
//
// Inside the program a Plan is trusted. One that comes over the network isn't, whoever's token came with it: Decode reads
// strictly (no field that this version doesn't know, nothing behind the value, bounded in size) and then holds the Plan
// against everything that planning guarantees, so that packages downstream need no check of their own. All that is wrong is
// returned at once.
//
// A File is held against the same, since hands and disks may have changed it, and its problems have their places; but whoever puts
// it on a node is trusted as with an inventory there. Of files it holds only names.
//
// A Plan may hold what only HAProxy can do, or only the native engine: Native and HAProxy are for nodes with the one and the other. The package is pure. Whether
// the Plan is for this node, and whether its ports can be had, are questions for the daemon.
package intake

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/config/safetext"
)

// MaxBytes bounds an Order's text: a provider of 1,000 clusters is sent about 4 MB.
const MaxBytes = 16 << 20

// Order is what a node is sent.
type Order struct {
	Plan model.Plan `json:"plan"`
	// Source is what the plan was made from, as the sender calls it: the inventory's path. Sender is who says to have sent
	// it, user@host. Both are for people to read and prove nothing.
	Source string `json:"source"`
	Sender string `json:"sender"`
}

// MaxRemark bounds Source and Sender, in bytes.
const MaxRemark = 400

// Encode gives the text of an Order as Decode reads it. What can't be sent is refused before it is.
func (o Order) Encode() ([]byte, error) {
	text, err := json.Marshal(o)
	if err != nil {
		return nil, fmt.Errorf("the plan for %s: %w", o.Plan.Node, err)
	}
	if _, err := Decode(text); err != nil {
		return nil, fmt.Errorf("the plan for %s: %w", o.Plan.Node, err)
	}
	return text, nil
}

// Decode reads an Order and holds it against everything that a Plan promises. The error names each problem.
func Decode(text []byte) (Order, error) {
	if len(text) > MaxBytes {
		return Order{}, fmt.Errorf("an order of %d bytes is too long: %d at most", len(text), MaxBytes)
	}
	if !utf8.Valid(text) {
		return Order{}, errors.New("the order isn't UTF-8")
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	var o Order
	if err := decoder.Decode(&o); err != nil {
		return Order{}, fmt.Errorf("not an order that this version understands: %s", plainJSONError(err))
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return Order{}, fmt.Errorf("not an order that this version understands: something follows it at byte %d", decoder.InputOffset())
	}
	if err := validate(o); err != nil {
		return Order{}, err
	}
	return o, nil
}

// plainJSONError takes encoding/json's own way of speaking out of its errors.
func plainJSONError(err error) string {
	var mistyped *json.UnmarshalTypeError
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &mistyped) && mistyped.Field != "":
		return fmt.Sprintf("%s is a %s", mistyped.Field, mistyped.Value)
	case errors.As(err, &syntax):
		return fmt.Sprintf("at byte %d: %v", syntax.Offset, err)
	}
	return strings.TrimPrefix(err.Error(), "json: ")
}

// Printable makes a text fit to be a remark: a path, say, that somebody else's files have.
func Printable(text string) string {
	text = safetext.Short(text, len(text))
	for len(text) > MaxRemark {
		// The end of a path says more than its beginning.
		_, first := utf8.DecodeRuneInString(text)
		text = text[first:]
	}
	return text
}

// remark checks a text for people: it goes into logs and onto terminals.
func remark(text string) bool {
	return len(text) <= MaxRemark && safetext.Is(text)
}
