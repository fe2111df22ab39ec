package model

import (
	"fmt"
	"strconv"
	"strings"
)

// LSN is a position in PostgreSQL's WAL, in bytes. Zero is PostgreSQL's InvalidXLogRecPtr: no position.
type LSN uint64

// ParseLSN reads PostgreSQL's own notation, two hexadecimal numbers of up to 32 bits with a slash: "0/3000420".
func ParseLSN(s string) (LSN, error) {
	hi, lo, ok := strings.Cut(s, "/")
	h, errHi := strconv.ParseUint(hi, 16, 32)
	l, errLo := strconv.ParseUint(lo, 16, 32)
	if !ok || errHi != nil || errLo != nil {
		return 0, fmt.Errorf("%q is not a WAL position such as 0/3000420", s)
	}
	return LSN(h<<32 | l), nil
}

// String is PostgreSQL's notation; "0/0" for no position.
func (l LSN) String() string { return fmt.Sprintf("%X/%X", uint32(l>>32), uint32(l)) }

// IsValid tells whether l is a position at all.
func (l LSN) IsValid() bool { return l != 0 }

// Segment is the number of the WAL segment that holds l, for segments of size bytes. PostgreSQL removes WAL by
// whole segments, so two positions in one segment hold the same files. A size of zero counts bytes.
func (l LSN) Segment(size uint64) uint64 {
	if size == 0 {
		return uint64(l)
	}
	return uint64(l) / size
}

// BytesTo is how many bytes of WAL lie between l and a later position; zero when it is not later.
func (l LSN) BytesTo(later LSN) uint64 {
	if later <= l {
		return 0
	}
	return uint64(later - l)
}

// MarshalText encodes an LSN in PostgreSQL's notation, no position as "".
func (l LSN) MarshalText() ([]byte, error) {
	if !l.IsValid() {
		return nil, nil
	}
	return []byte(l.String()), nil
}

// UnmarshalText reads what MarshalText wrote.
func (l *LSN) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*l = 0
		return nil
	}
	v, err := ParseLSN(string(text))
	if err != nil {
		return err
	}
	*l = v
	return nil
}
