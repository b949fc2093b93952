package soak

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"sync"
)

// stream is an endless pseudo-random text in which every offset is known by itself, so that a byte that is lost, doubled or
// moved shows at once and says where.
type stream uint64

// word gives the stream's eight bytes at 8*i (the finishing steps of SplitMix64: Steele, Lea and Flood, 2014).
func (s stream) word(i uint64) uint64 {
	z := uint64(s) + (i+1)*0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// fill writes what the stream has from an offset on, which is a multiple of 8.
func (s stream) fill(p []byte, at int64) {
	i := uint64(at) / 8
	for ; len(p) >= 8; p = p[8:] {
		binary.LittleEndian.PutUint64(p, s.word(i))
		i++
	}
	if len(p) > 0 {
		var last [8]byte
		binary.LittleEndian.PutUint64(last[:], s.word(i))
		copy(p, last[:])
	}
}

// castagnoli is the polynomial that processors have an instruction for.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// tally is how much of a stream went by, and its CRC-32C.
type tally struct {
	Bytes int64  `json:"bytes"`
	Sum   uint32 `json:"sum"`
}

func (t *tally) add(p []byte) {
	t.Bytes += int64(len(p))
	t.Sum = crc32.Update(t.Sum, castagnoli, p)
}

// desk is where a piece of a stream is made or compared.
type desk struct{ piece, want [64<<10 + 8]byte }

var desks = sync.Pool{New: func() any { return new(desk) }}

// send writes the stream's first total bytes in pieces of a size.
func (s stream) send(to io.Writer, total int64, piece int) (tally, error) {
	d := desks.Get().(*desk)
	defer desks.Put(d)
	var sent tally
	for sent.Bytes < total {
		part := d.piece[:min(64<<10, total-sent.Bytes)]
		s.fill(part, sent.Bytes)
		for len(part) > 0 {
			n, err := to.Write(part[:min(piece, len(part))])
			sent.add(part[:n])
			if err != nil {
				return sent, err
			}
			part = part[n:]
		}
	}
	return sent, nil
}

// errContent is a byte that isn't the stream's at its offset.
type errContent struct {
	at        int64
	got, want byte
}

func (e errContent) Error() string {
	return fmt.Sprintf("byte %d is %#02x, it was sent as %#02x", e.at, e.got, e.want)
}

// toItsEnd has receive read for as long as something comes.
const toItsEnd = -1

// receive reads total bytes, or toItsEnd, and compares each. The error of an end in order is io.EOF.
func (s stream) receive(from io.Reader, total int64) (tally, error) {
	d := desks.Get().(*desk)
	defer desks.Put(d)
	var got tally
	for got.Bytes != total {
		part := d.piece[:64<<10]
		if total >= 0 {
			part = part[:min(64<<10, total-got.Bytes)]
		}
		n, err := from.Read(part)
		// Offsets are known from a multiple of 8 on.
		ahead := got.Bytes % 8
		want := d.want[:ahead+int64(n)]
		s.fill(want, got.Bytes-ahead)
		want = want[ahead:]
		if !bytes.Equal(part[:n], want) {
			for i := range want {
				if part[i] != want[i] {
					return got, errContent{got.Bytes + int64(i), part[i], want[i]}
				}
			}
		}
		got.add(part[:n])
		if err != nil {
			return got, err
		}
	}
	return got, nil
}
