package rejoin

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgrex/pgrex/controller/operation/internal/fakes"
	"github.com/pgrex/pgrex/testenv/pgserver"
)

// breaks runs a shell command in the folder of a stopped server.
func breaks(t *testing.T, s *pgserver.Server, command string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "-ec", command)
	cmd.Dir = s.Dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
}

// A copy takes the place of data that are gone or damaged, whatever of them is gone. The other ways say why they are
// not possible. The copy is made only if it is asked for: perhaps a file system is just not mounted.
func TestCopyOverDamage(t *testing.T) {
	if asOwner(t) {
		return
	}
	primary := pgserver.New(t)
	host := primary.Standby()
	primary.SQL("SELECT pg_create_physical_replication_slot('mine', true)")
	primary.SQL("CREATE TABLE of_the_primary AS SELECT 1")
	host.Stop("fast")
	breaks(t, host, "cp -a data kept")
	r := &Rejoin{Report: func(line string) { t.Log(line) }}
	for _, c := range []struct {
		name, damage string
		why          string // is said of the other ways
		lacks        string // files that the copy brings
	}{
		{"no data folder", "rm -r data", "there is no data folder", "postgresql.conf, postgresql.auto.conf, pg_hba.conf, pg_ident.conf"},
		{"an empty one", "rm -r data/*", "is empty", "postgresql.conf, postgresql.auto.conf, pg_hba.conf, pg_ident.conf"},
		{"one in which the agent tried to start", "rm -r data/*; touch data/recovery.conf", "is empty", "postgresql.conf, postgresql.auto.conf, pg_hba.conf, pg_ident.conf"},
		{"a new file system", "rm -r data/*; mkdir data/lost+found", "is empty", "postgresql.conf, postgresql.auto.conf, pg_hba.conf, pg_ident.conf"},
		{"no control file", "rm data/global/pg_control", "the control file is damaged", ""},
		{"a damaged control file", "printf x | dd of=data/global/pg_control bs=1 seek=50 conv=notrunc", "the control file is damaged", ""},
		{"a short control file", "truncate --size=20 data/global/pg_control", "the control file is damaged", ""},
		{
			"only a control file", "rm -r data/[a-f]* data/[h-z]* data/PG_VERSION", "its WAL is gone",
			"postgresql.conf, postgresql.auto.conf, pg_hba.conf, pg_ident.conf",
		},
		{"no pg_wal", "rm -r data/pg_wal", "its WAL is gone", ""},
		{"an empty pg_wal", "rm -r data/pg_wal/*", "its WAL is gone", ""}, // its file system is not mounted
		{"a pg_wal on a new file system", "rm -r data/pg_wal; mkdir -p data/pg_wal/lost+found", "its WAL is gone", ""},
		{"pg_wal leads to a folder that is not there", "rm -r data/pg_wal; ln -s ../gone data/pg_wal", "its WAL is gone", ""},
		{"no postgresql.conf", "rm data/postgresql.conf", "PostgreSQL cannot read its configuration", "postgresql.conf"},
	} {
		t.Run(c.name, func(t *testing.T) {
			breaks(t, host, "rm -rf data* gone* && cp -a kept data")
			breaks(t, host, c.damage)
			found := caseOf(t, host, primary)
			found.Ladder = Ladder(found.Return)
			for _, rung := range found.Ladder {
				if rung.Possible != (rung.Method == MethodCopy) || !rung.Possible && !strings.Contains(rung.Why, c.why) {
					t.Errorf("%s is possible: %t: %s", rung.Method, rung.Possible, rung.Why)
				}
				if rung.Possible && rung.Bytes < 10<<20 {
					t.Errorf("it fetches %d bytes", rung.Bytes)
				}
			}
			if rung, err := found.Choose("auto"); err == nil {
				t.Errorf("without being asked for: %+v", rung)
			}
			says, err := found.Keeps(t.Context(), MethodCopy)
			said := strings.Join(says, "\n")
			want := ""
			if c.lacks != "" {
				want = fmt.Sprintf("this host has no %s in its data folder: the copy keeps those of pm01", c.lacks)
			}
			if err != nil || strings.Contains(said, "this host has no ") != (want != "") || !strings.Contains(said, want) {
				t.Errorf("it says %s, %v", said, err)
			}
			if err := fakes.Do(t.Context(), t, r.copy(found)); err != nil {
				t.Fatal(err)
			}
			if strings.Contains(c.lacks, "postgresql.conf") { // the agent starts it with options of its own
				host.Configured(fmt.Sprintf("port = %d", host.Port), "unix_socket_directories = '"+host.Dir+"'")
			}
			followsThrough(t, host, primary)
			host.Await("it has what the primary has", func() bool {
				now, err := host.Try("SELECT to_regclass('of_the_primary') IS NOT NULL")
				return err == nil && now == "t"
			})
			host.Stop("fast")
			if err := found.Place.Finish(t.Context()); err != nil || found.Place.Left() {
				t.Errorf("something is left: %t, %v", found.Place.Left(), err)
			}
			if strings.Contains(c.damage, "ln -s") {
				if wal, err := found.Place.WALFolder(); err != nil || wal != host.Dir+"/gone.pgrex" {
					t.Errorf("its WAL is in %s, %v", wal, err)
				}
			}
		})
	}
}

// pgrex leaves what it cannot replace, and says what to do: files that are not a database's, and settings that the copy
// would keep though PostgreSQL cannot read them.
func TestNoCopyOverStrangers(t *testing.T) {
	if asOwner(t) {
		return
	}
	primary := pgserver.New(t)
	host := primary.Standby()
	host.Stop("fast")
	for _, c := range []struct{ damage, want string }{ // one after the other
		{"cp data/postgresql.conf kept.conf; echo 'max_connections = 5' >>data/postgresql.conf", "max_connections = 5, but "},
		{"echo 'rubbish = rubbish =' >>data/postgresql.conf", "mend it; or move the file away"},
		{"rm -r data/*; touch data/letter", "holds files, but no database"},
	} {
		breaks(t, host, c.damage)
		found := caseOf(t, host, primary)
		found.Ladder = Ladder(found.Return)
		if _, err := found.Choose(string(MethodCopy)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.damage, err)
		}
	}
	if _, err := os.Stat(filepath.Join(host.Dir, "data", "letter")); err != nil {
		t.Error(err)
	}
}
