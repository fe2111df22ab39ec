package datadir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/pgrex/pgrex/reconcile"
)

// The manifest of a backup of many files is not held in memory, and reading it ends with an interrupt. One that is cut
// off is an error.
func TestManifestOfManyFiles(t *testing.T) {
	const files, most, interrupted = 100_000, 2 << 20, 10 // all of it at once takes more than 20 MB
	const end = `], "WAL-Ranges": [{"Timeline": 3, "Start-LSN": "0/2000028", "End-LSN": "0/2000100"}], "Manifest-Checksum": "00"}`
	text := func(end string) io.Reader {
		r, w := io.Pipe()
		t.Cleanup(func() { _ = r.Close() })
		go func() {
			_, err := io.WriteString(w, `{"PostgreSQL-Backup-Manifest-Version": 1, "Files": [{"Path": "base/0", "Size": 1}`)
			for i := 1; i < files && err == nil; i++ {
				_, err = fmt.Fprintf(w, `, {"Path": "base/%d", "Size": %d, "Last-Modified": "2026-01-01 00:00:00 GMT"}`, i, i)
			}
			if err == nil {
				_, err = io.WriteString(w, end)
			}
			_ = w.CloseWithError(err)
		}()
		return r
	}
	before, held, seen := inUse(), uint64(0), 0
	ranges, err := readManifest(t.Context(), text(end), func(listed) {
		if seen++; seen%20_000 == 0 {
			held = max(held, inUse())
		}
	})
	if b := (&reconcile.Backup{Timeline: 3, Start: 0x2000028}); err != nil || seen != files || endOf(ranges, b) != 0x2000100 {
		t.Errorf("it has seen %d files and %v: %v", seen, ranges, err)
	}
	if held > before+most {
		t.Errorf("it holds %d bytes", held-before)
	}
	if _, err := readManifest(t.Context(), text(""), func(listed) {}); err == nil {
		t.Error("a manifest without an end is no error")
	}
	if _, err := readManifest(t.Context(), strings.NewReader("{}"), func(listed) {}); err != nil {
		t.Error(err)
	}
	ctx, interrupt := context.WithCancelCause(t.Context())
	errInterrupted := errors.New("interrupted")
	seen = 0
	_, err = readManifest(ctx, text(end), func(listed) {
		if seen++; seen == interrupted {
			interrupt(errInterrupted)
		}
	})
	if !errors.Is(err, errInterrupted) || seen != interrupted {
		t.Errorf("after an interrupt it has seen %d files: %v", seen, err)
	}
}
