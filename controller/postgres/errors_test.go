package postgres_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/pgrex/pgrex/controller/postgres"
	"github.com/pgrex/pgrex/testenv/pgserver"
)

// TestClasses: what a real server answers, and the class it has. The steps' own guards keep most of it from happening.
func TestClasses(t *testing.T) {
	t.Parallel()
	primary, _ := pair(t, "max_replication_slots = 2")
	primary.SQL("CREATE ROLE guest LOGIN")
	primary.SQL("SELECT pg_create_physical_replication_slot('unreserved')")
	type answer struct{ User, SQL string }
	want := map[answer]postgres.Class{
		{"postgres", "SELECT 1"}:                                                               "",
		{"postgres", "SELECT pg_drop_replication_slot('own')"}:                                 postgres.Busy,
		{"postgres", "SELECT pg_replication_slot_advance('own', pg_current_wal_lsn())"}:        postgres.Busy,
		{"postgres", "SELECT pg_drop_replication_slot('nothing')"}:                             postgres.AlreadyDone,
		{"postgres", "SELECT pg_create_physical_replication_slot('own')"}:                      postgres.AlreadyDone,
		{"postgres", "SELECT pg_create_physical_replication_slot('third')"}:                    postgres.Capacity,
		{"postgres", "SELECT pg_create_physical_replication_slot('Third')"}:                    postgres.Configuration,
		{"postgres", "SELECT pg_create_logical_replication_slot('third', 'test_decoding')"}:    postgres.Configuration,
		{"postgres", "SELECT pg_replication_slot_advance('unreserved', pg_current_wal_lsn())"}: postgres.Configuration,
		{"postgres", "ALTER SYSTEM SET primary_slot_name = 'a-b'"}:                             postgres.Configuration,
		{"postgres", "SET statement_timeout = 1; SELECT pg_sleep(60)"}:                         postgres.Transient,
		{"postgres", "SELECT pg_terminate_backend(pg_backend_pid())"}:                          postgres.Transient,
		{"postgres", "SELECT 1/0"}:                                                             postgres.Unknown,
		{"guest", "SELECT pg_drop_replication_slot('unreserved')"}:                             postgres.Permission,
		{"guest", "ALTER SYSTEM SET primary_slot_name = ''"}:                                   postgres.Permission,
		{"guest", "SELECT pg_create_physical_replication_slot('guests')"}:                      postgres.Permission,
		{"nobody", ""}: postgres.Permission,
	}
	got := map[answer]postgres.Class{}
	for q := range want {
		err := run(t, primary, q.User, q.SQL)
		got[q] = postgres.ClassOf(postgres.Classify(err, "try it"))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("classes (-want +got):\n%s", diff)
	}
	if got := postgres.ClassOf(errors.New("another package's")); got != postgres.Unknown {
		t.Errorf("a foreign error is %q", got)
	}
}

// TestNoSlotsAllowed: settings that forbid slots are a matter of configuration, not of capacity.
func TestNoSlotsAllowed(t *testing.T) {
	t.Parallel()
	server := pgserver.New(t, "max_replication_slots = 0")
	err := run(t, server, "postgres", "SELECT pg_create_physical_replication_slot('none')")
	wantClass(t, postgres.Classify(err, "try it"), postgres.Configuration)
}

func run(t *testing.T, server *pgserver.Server, user, sql string) error {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), fmt.Sprintf("host=%s port=%d dbname=postgres user=%s", server.Dir, server.Port, user))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(t.Context()) }()
	_, err = conn.PgConn().Exec(t.Context(), sql).ReadAll()
	return err
}
