package postgres_test

import (
	"testing"
)

// TestReceiver: a standby whose WAL is gone on the primary does not stream, though PostgreSQL says so again and again.
func TestReceiver(t *testing.T) {
	t.Parallel()
	primary, standby := pair(t, "max_slot_wal_keep_size = 16MB")
	a := adapter(t, standby)
	standby.Await("it streams", func() bool { return observe(t, a).Receiver.Streaming() })
	standby.Configure("primary_slot_name = ''", "wal_retrieve_retry_interval = 1")
	standby.Stop("fast")
	primary.WriteWAL(64)
	standby.Start()
	standby.Await("PostgreSQL says that it streams", func() bool {
		return standby.SQL(`SELECT count(*) FILTER (WHERE status = 'streaming') > 0 FROM (
			SELECT (pg_stat_get_wal_receiver()).status, pg_sleep(0.001) FROM generate_series(1, 1000)) AS look`) == "t"
	})
	for range 200 {
		if r := observe(t, a).Receiver; r.Streaming() {
			t.Fatalf("it is seen to stream: %+v", *r)
		}
	}
	if !standby.Logged("has already been removed") {
		t.Error("there was WAL for it to receive")
	}
}
