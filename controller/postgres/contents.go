package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Contents is what a copy of the primary brings, as far as the user of the connection may see it.
type Contents struct {
	// Bytes is the size of all databases, with their tablespaces and without WAL; 0 if the user may see none, or if
	// measuring them takes too long.
	Bytes       uint64       `json:"bytes"`
	Unmeasured  string       `json:"-"`           // why Bytes is 0
	Tablespaces []Tablespace `json:"tablespaces"` // those outside the data folder, by name
}

// Tablespace is one of the primary's tablespaces. Bytes is 0 if it is not known.
type Tablespace struct {
	OID      uint32 `json:"oid"`
	Name     string `json:"name"`
	Location string `json:"location"` // its folder on the primary
	Bytes    uint64 `json:"bytes"`
}

// sizesTimeout bounds the measuring of the databases: PostgreSQL looks at each of their files, which may be a million.
// Within a deadline, the measuring has only a part of the time: whoever waits may need no size.
const (
	sizesTimeout = 2 * time.Minute
	sizesPart    = 4
)

// sizesLimit is how long the databases may be measured.
func sizesLimit(ctx context.Context) time.Duration {
	end, is := ctx.Deadline()
	if !is {
		return sizesTimeout
	}
	return min(sizesTimeout, time.Until(end)/sizesPart)
}

// Contents lists the primary's tablespaces, and measures its databases. It needs OpenSourceDatabase.
func (s *Source) Contents(ctx context.Context) (Contents, error) {
	listed, err := s.list(ctx)
	if err != nil {
		return listed, err
	}
	measured, err := s.contents(ctx, sizesLimit(ctx), sqlSizes, "measure the primary's databases")
	switch {
	case err != nil:
		listed.Unmeasured = err.Error()
	case measured.Bytes == 0:
		listed.Unmeasured = "the replication user may not see the size of any database"
	default:
		listed.Bytes = measured.Bytes
		for i, t := range listed.Tablespaces {
			for _, m := range measured.Tablespaces {
				if m.OID == t.OID {
					listed.Tablespaces[i].Bytes = m.Bytes
				}
			}
		}
	}
	return listed, ctx.Err()
}

// Tablespaces lists the primary's tablespaces without their sizes. It needs OpenSourceDatabase.
func (s *Source) Tablespaces(ctx context.Context) ([]Tablespace, error) {
	c, err := s.list(ctx)
	return c.Tablespaces, err
}

func (s *Source) list(ctx context.Context) (Contents, error) {
	return s.contents(ctx, upstreamTimeout, sqlTablespaces, "list the primary's tablespaces")
}

func (s *Source) contents(ctx context.Context, timeout time.Duration, sql, doing string) (c Contents, err error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	limit := "SET statement_timeout = " + milliseconds(timeout)
	if _, err := s.upstream.conn.Exec(ctx, limit).ReadAll(); err != nil {
		return c, classify(err, doing)
	}
	row, err := s.upstream.row(ctx, sql, doing)
	if err != nil {
		return c, err
	}
	if err := json.Unmarshal(row[0], &c); err != nil {
		return c, &Error{Class: Unknown, Doing: doing, Err: err}
	}
	for i, t := range c.Tablespaces {
		c.Tablespaces[i].Location = filepath.Clean(t.Location)
	}
	return c, nil
}

// WALSizes returns the size of a WAL segment of the primary, and its max_wal_size, both in bytes.
func (s *Source) WALSizes(ctx context.Context) (segment, most uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, upstreamTimeout)
	defer cancel()
	for i, size := range []*uint64{&segment, &most} {
		name := []string{"wal_segment_size", "max_wal_size"}[i]
		doing := "SHOW " + name + " at the primary"
		row, err := s.upstream.row(ctx, "SHOW "+name, doing)
		if err != nil {
			return 0, 0, err
		}
		if *size, err = parseSize(string(row[0])); err != nil {
			return 0, 0, &Error{Class: Unknown, Doing: doing, Err: err}
		}
	}
	return segment, most, nil
}

// parseSize reads a setting in bytes as SHOW prints it: a number and a unit.
func parseSize(text string) (uint64, error) {
	digits := strings.TrimRight(text, "kMGTB")
	units := map[string]uint{"B": 0, "kB": 10, "MB": 20, "GB": 30, "TB": 40}
	shift, known := units[text[len(digits):]]
	n, err := strconv.ParseUint(digits, 10, 32)
	if err != nil || !known {
		return 0, fmt.Errorf("%q is not a size such as 16MB", text)
	}
	return n << shift, nil
}
