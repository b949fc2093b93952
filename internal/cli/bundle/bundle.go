// Package bundle writes what a report of a fault needs into one file: a tar archive, compressed by gzip, with a list of what is in it and of what
// couldn't be had. It takes secrets out of all that goes in; what is asked and read is the command's business.
package bundle

import (
	"archive/tar"
	"compress/gzip"
	"fmt"
	"io"
	"path"
	"strings"
	"time"
)

// Sizes of what goes in: a file, and all of them, before compression.
const (
	mostFile = 4 << 20
	mostAll  = 32 << 20
)

// A Writer writes a bundle.
type Writer struct {
	Redactor
	// name is the directory that everything is in.
	name string
	now  time.Time
	zip  *gzip.Writer
	tar  *tar.Writer
	// most bounds a file, left what may still come.
	most, left int
	list       []string
}

// NewWriter begins a bundle. Its files lie in a directory called name.
func NewWriter(w io.Writer, name string, now time.Time) *Writer {
	zip := gzip.NewWriter(w)
	return &Writer{name: name, now: now, zip: zip, tar: tar.NewWriter(zip), most: mostFile, left: mostAll}
}

// Own puts in a text of pgporter's own, of which the form stays: known secrets are hidden in it. about says what it is.
func (w *Writer) Own(name, about, text string) error { return w.put(name, about, w.Known(text)) }

// Foreign puts in a text that others wrote, or that may have something of theirs in it: what looks like a secret is hidden too.
func (w *Writer) Foreign(name, about, text string) error { return w.put(name, about, w.Text(text)) }

// Missing notes that something couldn't be had, and why.
func (w *Writer) Missing(name, about string, why error) {
	w.list = append(w.list, fmt.Sprintf("- %s: %s\n    not there: %s\n", name, about, strings.ReplaceAll(w.Text(why.Error()), "\n", "\n    ")))
}

// put cuts a text to what there is room for: the end of a log says more than its beginning, and so does that of everything else that may be so long.
func (w *Writer) put(name, about, text string) error {
	cut := ""
	if most := min(w.most, w.left); len(text) > most {
		cut = fmt.Sprintf(" (the last %d of %d bytes)", most, len(text))
		text = text[len(text)-most:]
	}
	w.left -= len(text)
	w.list = append(w.list, fmt.Sprintf("- %s: %s, %d bytes%s\n", name, about, len(text), cut))
	return w.write(name, text)
}

func (w *Writer) write(name, text string) error {
	header := &tar.Header{Typeflag: tar.TypeReg, Name: path.Join(w.name, name), Mode: 0o600, Size: int64(len(text)), ModTime: w.now}
	if err := w.tar.WriteHeader(header); err != nil {
		return err
	}
	_, err := io.WriteString(w.tar, text)
	return err
}

// Contents lists what is in it.
func (w *Writer) Contents() string { return strings.Join(w.list, "") }

// Close writes the list and ends the bundle.
func (w *Writer) Close() error {
	text := fmt.Sprintf("pgporter's bundle of %s. Passwords, tokens and keys were taken out; addresses, names of members, services, databases and users were not.\n\n%s",
		w.now.UTC().Format(time.RFC3339), w.Contents())
	if err := w.write("CONTENTS", w.Known(text)); err != nil {
		return err
	}
	if err := w.tar.Close(); err != nil {
		return err
	}
	return w.zip.Close()
}
