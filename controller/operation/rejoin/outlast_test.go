package rejoin

import (
	"context"
	"testing"
	"time"
)

// pg_rewind goes on for a while after the operation is to end, and not without an end.
func TestOutlast(t *testing.T) {
	ctx, end := context.WithCancel(t.Context())
	end()
	longer, done := outlast(ctx, time.Hour)
	if longer.Err() != nil {
		t.Error("it ends at once")
	}
	done()
	if longer.Err() == nil {
		t.Error("it does not end with what it is for")
	}
	longer, done = outlast(ctx, time.Millisecond)
	defer done()
	select {
	case <-longer.Done():
	case <-time.After(20 * time.Second):
		t.Error("it never ends")
	}
	if same, _ := outlast(ctx, 0); same.Err() == nil {
		t.Error("without a while it outlasts")
	}
}
