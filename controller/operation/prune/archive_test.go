package prune

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgrex/pgrex/controller"
	"github.com/pgrex/pgrex/controller/operation"
	"github.com/pgrex/pgrex/controller/operation/internal/fakes"
	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
	"github.com/pgrex/pgrex/testenv/pgserver"
)

const system = 7 // identifier of the database here

// segmentOf is the beginning of a segment of a database.
func segmentOf(system uint64) []byte {
	head := make([]byte, 100)
	head[0], head[1] = 0x10, 0xD1
	binary.NativeEndian.PutUint16(head[2:], 2)
	binary.NativeEndian.PutUint64(head[24:], system)
	return head
}

// archive makes a folder of files, each of this database.
func archive(t *testing.T, names ...string) string {
	t.Helper()
	folder := t.TempDir()
	for _, name := range names {
		write(t, filepath.Join(folder, name), segmentOf(system))
	}
	return folder
}

func write(t *testing.T, path string, text []byte) {
	t.Helper()
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// filesIn are the names in a folder, in order.
func filesIn(t *testing.T, folder string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// from is a need of everything from a position on.
func from(position model.LSN) *needs {
	n := &needs{found: []Need{{"somebody", position}}}
	n.Instance.SystemID, n.Instance.WALSegmentSize = "7", mib16
	return n
}

// prune does what is chosen.
func prune(ctx context.Context, t *testing.T, a *Archive, folder string, n *needs) error {
	t.Helper()
	w, err := a.choose(t.Context(), folder, n)
	if err != nil {
		return err
	}
	return fakes.Engine(t, fakes.Lone()).Run(ctx, w.Actions)
}

// What is on disk after a pruning: files that are none of PostgreSQL's, folders and links stay, whatever they are
// called.
func TestPruneFolder(t *testing.T) {
	stays := []string{"00000002.history", "00000003.history.gz", "000000010000000000000004", "000000010000000000000004.00000028.backup",
		"0000000200000000000000FF.gz", "000000010000000000000001.tmp", "note", "000000010000000000000100"}
	goes := []string{"000000010000000000000001", "000000010000000000000002.partial", "000000010000000000000002.00000028.backup.gz",
		"000000020000000000000003", "000000020000000000000003.zst"}
	folder := archive(t, slices.Concat(stays, goes)...)
	write(t, filepath.Join(folder, "other"), nil)
	for name, make := range map[string]func(path string) error{
		"000000010000000000000000": func(path string) error { return os.Mkdir(path, 0o700) },
		"000000020000000000000000": func(path string) error { return os.Symlink(filepath.Join(folder, "other"), path) },
		"000000020000000000000001": func(path string) error { return syscall.Mkfifo(path, 0o600) },
	} {
		if err := make(filepath.Join(folder, name)); err != nil {
			t.Fatal(err)
		}
		stays = append(stays, name)
	}
	if err := prune(t.Context(), t, &Archive{}, folder, from(0x4000100)); err != nil {
		t.Fatal(err)
	}
	stays = append(stays, "other")
	slices.Sort(stays)
	if diff := cmp.Diff(stays, filesIn(t, folder)); diff != "" {
		t.Errorf("there is (-wanted +there):\n%s", diff)
	}
	w, err := (&Archive{}).choose(t.Context(), folder, from(0x4000100))
	if err != nil || len(w.Actions) > 0 || !slices.Contains(w.Says, "every file is needed") {
		t.Errorf("a second time it would do %v, and says %q, %v", w.Actions, w.Says, err)
	}
}

// A folder that is no archive of this database loses nothing.
func TestNotThisArchive(t *testing.T) {
	names := []string{"000000010000000000000001", "000000010000000000000002", "000000010000000000000003"}
	for name, test := range map[string]struct {
		happens func(folder string) error
		says    string
	}{
		"another database's, in the middle": {func(folder string) error {
			return os.WriteFile(filepath.Join(folder, names[1]), segmentOf(8), 0o600)
		}, names[1] + " is WAL of another database: its system identifier is 8, and here it is 7"},
		"a pg_wal": {func(folder string) error { return os.Mkdir(filepath.Join(folder, "archive_status"), 0o700) }, "is the pg_wal of a database"},
		"a pg_wal, by a link": {func(folder string) error {
			return os.Symlink(t.TempDir(), filepath.Join(folder, "archive_status"))
		}, "is the pg_wal of a database"},
		"no folder": {os.RemoveAll, "look into the archive"},
		"Barman's": {func(folder string) error {
			return os.WriteFile(filepath.Join(filepath.Dir(folder), "xlog.db"), nil, 0o600)
		}, "is an archive of Barman, which knows alone what its backups need: type barman delete"},
		"WAL-G's": {func(folder string) error {
			return os.Mkdir(filepath.Join(filepath.Dir(folder), "basebackups_005"), 0o700)
		},
			"is an archive of WAL-G"},
	} {
		t.Run(name, func(t *testing.T) {
			folder := archive(t, names...)
			if err := test.happens(folder); err != nil {
				t.Fatal(err)
			}
			before, _ := os.ReadDir(folder)
			if err := prune(t.Context(), t, &Archive{NoBackups: true}, folder, from(0x9000000)); err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("it says %v", err)
			}
			if after, _ := os.ReadDir(folder); len(after) != len(before) {
				t.Errorf("there is %v, and was %v", after, before)
			}
		})
	}
	// What does not say whose it is goes, with a warning; one that says so is enough.
	folder := archive(t)
	write(t, filepath.Join(folder, names[0]), []byte("packed"))
	for _, warned := range []bool{true, false} {
		w, err := (&Archive{NoBackups: true}).choose(t.Context(), folder, from(0x9000000))
		if said := strings.Contains(strings.Join(w.Says, "\n"), "pgrex cannot tell which database these files belong to"); err != nil || said != warned {
			t.Errorf("it says %q, %v", w.Says, err)
		}
		write(t, filepath.Join(folder, names[1]), segmentOf(system))
	}
}

// A backup that is kept needs everything from where it begins; what does not say where is an error, and nothing goes.
func TestPruneForBackups(t *testing.T) {
	names := []string{"000000010000000000000001", "000000010000000000000002", "000000010000000000000003"}
	const line = "START WAL LOCATION: %s (file 000000010000000000000002)\n"
	for name, test := range map[string]struct {
		label string
		left  int
		says  string
	}{
		"begins in the second": {strings.Replace(line, "%s", "0/2000028", 1), 2, ""},
		"after other lines":    {"LABEL: START WAL\n" + strings.Replace(line, "%s", "0/3000028", 1), 1, ""},
		"empty":                {"", 3, "does not tell"},
		"cut off":              {"START WAL LOCATION: 0/", 3, "does not tell"},
		"no position":          {strings.Replace(line, "%s", "0/123456789", 1), 3, "0/123456789"},
	} {
		t.Run(name, func(t *testing.T) {
			folder, backup := archive(t, names...), t.TempDir()
			write(t, filepath.Join(backup, "backup_label"), []byte(test.label))
			err := prune(t.Context(), t, &Archive{BackupFolders: []string{backup}}, folder, from(0x9000000))
			if (err != nil) != (test.says != "") || err != nil && !strings.Contains(err.Error(), test.says) {
				t.Errorf("it says %v", err)
			}
			if left := filesIn(t, folder); len(left) != test.left {
				t.Errorf("there is %v", left)
			}
		})
	}
}

// Nothing is removed if no backup is known. Otherwise prune says which backups are known, and which cannot be known.
func TestKnownBackups(t *testing.T) {
	const segment, label = "000000010000000000000001", "000000010000000000000003.00000028.backup"
	backup := t.TempDir()
	write(t, filepath.Join(backup, "backup_label"), []byte("START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\n"))
	for name, test := range map[string]struct {
		archive Archive
		history bool
		says    string
		refused string
	}{
		"none":                       {Archive{Backups: AllBackups}, false, "", "no backup is known"},
		"none is kept, of none":      {Archive{}, false, "", "say --no-backups if there is none"},
		"none, the operator says":    {Archive{NoBackups: true}, false, "backups: none, as --no-backups says", ""},
		"none, but there is":         {Archive{NoBackups: true}, true, "", "tell of 1 backups; to give them up, --keep-backups 0"},
		"one in the archive":         {Archive{Backups: AllBackups}, true, "backups: 1 by their history files in the archive, 0 named", ""},
		"one named":                  {Archive{Backups: AllBackups, BackupFolders: []string{backup}}, false, "0 by their history files in the archive, 1 named", ""},
		"one that is not to be kept": {Archive{}, true, "backups: 1 by their", ""},
	} {
		t.Run(name, func(t *testing.T) {
			folder := archive(t, segment)
			if test.history {
				write(t, filepath.Join(folder, label), nil)
				write(t, filepath.Join(folder, label+".gz"), nil)
			}
			w, err := test.archive.choose(t.Context(), folder, from(0x2000000))
			if (err != nil) != (test.refused != "") || err != nil && !strings.Contains(err.Error(), test.refused) {
				t.Errorf("refused: %v", err)
			}
			said := strings.Join(w.Says, "\n")
			if !strings.Contains(said, test.says) || strings.Contains(test.says, " by ") != strings.Contains(said, "pgBackRest, Barman or WAL-G") {
				t.Errorf("it says %q", said)
			}
			if err == nil && len(w.Actions) == 0 {
				t.Error("nothing goes")
			}
		})
	}
	// If nothing can be removed, it does not matter that no backup is known.
	w, err := (&Archive{Backups: AllBackups}).choose(t.Context(), archive(t, segment), from(0x1000000))
	if err != nil || len(w.Actions) > 0 {
		t.Errorf("%v, %v", w, err)
	}
}

// ends is a context that ends when it was asked some times.
type ends struct {
	context.Context
	left *int
}

// Err implements context.Context.
func (e ends) Err() error {
	if *e.left--; *e.left < 0 {
		return context.Canceled
	}
	return nil
}

// Interrupted in the middle, the oldest are gone and no gap is left. Run again, it does the others.
func TestPruneInterrupted(t *testing.T) {
	names := []string{"000000010000000000000001", "000000010000000000000002", "000000020000000000000003", "000000020000000000000004"}
	for _, to := range []string{"", t.TempDir()} {
		folder := archive(t, names...)
		left := 1 + len(names) + 2 // the engine's question, those at each name, and those before two files
		err := prune(ends{t.Context(), &left}, t, &Archive{Move: to, NoBackups: true}, folder, from(0x9000000))
		if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "2 of 4 are done, run it again for the others") {
			t.Errorf("it ends with %v", err)
		}
		if diff := cmp.Diff(names[2:], filesIn(t, folder)); diff != "" {
			t.Errorf("left is (-wanted +there):\n%s", diff)
		}
		if err := prune(t.Context(), t, &Archive{Move: to, NoBackups: true}, folder, from(0x9000000)); err != nil || len(filesIn(t, folder)) > 0 {
			t.Errorf("run again: %v, left is %v", err, filesIn(t, folder))
		}
		if to == "" {
			continue
		}
		if diff := cmp.Diff(names, filesIn(t, to)); diff != "" {
			t.Errorf("moved is (-wanted +there):\n%s", diff)
		}
	}
}

// A file that somebody else has removed since the question does no harm. That fewer files went is said.
func TestPruneGoneMeanwhile(t *testing.T) {
	folder := archive(t, "000000010000000000000001", "000000010000000000000002")
	var said []string
	a := &Archive{NoBackups: true, Report: func(line string) { said = append(said, line) }}
	w, err := a.choose(t.Context(), folder, from(0x9000000))
	if err == nil {
		err = os.Remove(filepath.Join(folder, "000000010000000000000001"))
	}
	if err == nil {
		err = fakes.Engine(t, fakes.Lone()).Run(t.Context(), w.Actions)
	}
	if err != nil || len(filesIn(t, folder)) > 0 {
		t.Errorf("%v, left is %v", err, filesIn(t, folder))
	}
	if len(said) != 1 || !strings.Contains(said[0], "1 of 2 files: the others have changed meanwhile, or are gone") {
		t.Errorf("it says %q", said)
	}
}

// Files are moved whole to another file system, and a move that was killed there is finished by the next one. A file of
// the same name that is another one stays, and so does what was to be moved.
func TestPruneMovesOver(t *testing.T) {
	names := []string{"000000010000000000000001", "000000010000000000000002", "000000010000000000000003"}
	folder := archive(t, names...)
	to, err := os.MkdirTemp("/dev/shm", "pgrex-prune")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(to) })
	write(t, filepath.Join(to, names[0]+".pgrex-new"), []byte("cut o")) // killed while the first was copied
	write(t, filepath.Join(to, names[1]), segmentOf(system))            // and once before the second was removed
	write(t, filepath.Join(to, names[2]), segmentOf(8))
	err = prune(t.Context(), t, &Archive{Move: to, NoBackups: true}, folder, from(0x9000000))
	if err == nil || !strings.Contains(err.Error(), "2 of 3 are done") || !strings.Contains(err.Error(), names[2]+" is there already") {
		t.Errorf("it ends with %v", err)
	}
	if diff := cmp.Diff(names[2:], filesIn(t, folder)); diff != "" {
		t.Errorf("left is (-wanted +there):\n%s", diff)
	}
	if diff := cmp.Diff(names, filesIn(t, to)); diff != "" {
		t.Errorf("moved is (-wanted +there):\n%s", diff)
	}
	for name, want := range map[string]string{names[0]: string(segmentOf(system)), names[1]: string(segmentOf(system)), names[2]: string(segmentOf(8))} {
		if text, err := os.ReadFile(filepath.Join(to, name)); err != nil || string(text) != want {
			t.Errorf("%s is %q, %v", name, text, err)
		}
	}
}

// Where files cannot be moved is said before any is.
func TestMayMove(t *testing.T) {
	folder := archive(t, "000000010000000000000001")
	link, file := filepath.Join(t.TempDir(), "link"), filepath.Join(t.TempDir(), "file")
	if err := os.Symlink(folder, link); err != nil {
		t.Fatal(err)
	}
	write(t, file, nil)
	for to, says := range map[string]string{
		folder: "is the archive itself", link: "is the archive itself", file: "is no folder", filepath.Join(folder, "none"): "make the folder first",
	} {
		if err := prune(t.Context(), t, &Archive{Move: to, NoBackups: true}, folder, from(0x9000000)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("to %s: %v", to, err)
		}
	}
	if _, err := os.Stat(filepath.Join(folder, "000000010000000000000001")); errors.Is(err, fs.ErrNotExist) {
		t.Error("it was moved")
	}
}

// standbyOf is a look from pm02, a standby of pm01's; pm03 is away, and pm01 holds WAL for it.
func standbyOf(t *testing.T, change func(n *needs, pm03 *model.Node, clone *model.Clone)) *needs {
	t.Helper()
	c := fakes.NewTrio(t)
	c.Clone.Roles = fakes.Roles{"pm01": "promoted", "pm02": "unpromoted", "pm03": "stopped"}
	cluster, err := c.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	cluster.Nodes[0].Transient["pgrex-forecast-pgsql"] = "pm03=stream"
	n := &needs{status: says(nil)}
	n.Instance = model.Instance{
		State: model.ServerUp, InRecovery: true, SystemID: "7", Redo: 0x5000000,
		Slots: []model.Slot{{Name: "pgrex_pm03", RestartLSN: 0x4800000}, {Name: "none"}},
	}
	n.Upstream = &model.Upstream{SystemID: "7", Slots: []model.UpstreamSlot{
		{Name: "pgrex_pm02", Exists: true, RestartLSN: 0x6000000}, {Name: "pgrex_pm03", Exists: true, RestartLSN: 0x4000000},
	}}
	if change != nil {
		change(n, &cluster.Nodes[2], &cluster.Clones[0])
	}
	instance, upstream := n.Instance, n.Upstream
	n.Who, err = reconcile.ResolveCluster(reconcile.Input{Node: "pm02", Cluster: &cluster})
	if err != nil {
		t.Fatal(err)
	}
	n.Instance, n.Upstream = instance, upstream
	return n
}

// says is the status of a daemon that foretells that pm03 comes back to pm02, after a change by the test.
func says(change func(*controller.Status)) func(context.Context) (controller.Status, error) {
	s := controller.Status{Primitive: "pgsql", Read: time.Now(), Forecast: []model.Forecast{
		{Candidate: "pm01", Host: "pm03", Way: model.WayStream}, {Candidate: "pm02", Host: "pm03", Way: model.WayRewind},
	}}
	if change != nil {
		change(&s)
	}
	return func(context.Context) (controller.Status, error) { return s, nil }
}

// What is needed is known only where everybody who may need something has said so, or is given up.
func TestNeeds(t *testing.T) {
	n := standbyOf(t, nil)
	if err := n.gather(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := []Need{
		{"pm02, its last checkpoint", 0x5000000}, {"the slot pgrex_pm03 on pm02", 0x4800000}, {"the slot pgrex_pm02 on pm01", 0x6000000},
		{"the slot pgrex_pm03 on pm01", 0x4000000},
	}
	if diff := cmp.Diff(want, n.found); diff != "" {
		t.Errorf("needed is (-wanted +found):\n%s", diff)
	}
	for name, test := range map[string]struct {
		change func(n *needs, pm03 *model.Node, clone *model.Clone)
		says   string
		always bool // also where pm03 is given up
	}{
		"a base backup here": {func(n *needs, _ *model.Node, _ *model.Clone) {
			n.Instance.Senders = []model.WALSender{{State: "streaming"}, {State: "backup"}}
		}, "a base backup is being taken here", true},
		"the primary is silent": {func(n *needs, _ *model.Node, _ *model.Clone) { n.Upstream = nil }, "the primary pm01 could not be asked", true},
		"another database":      {func(n *needs, _ *model.Node, _ *model.Clone) { n.Upstream.SystemID = "8" }, "is another database", true},
		"no slot":               {func(n *needs, _ *model.Node, _ *model.Clone) { n.Upstream.Slots = n.Upstream.Slots[:1] }, "holds no WAL for pm03", false},
		"a slot that is lost":   {func(n *needs, _ *model.Node, _ *model.Clone) { n.Upstream.Slots[1].RestartLSN = 0 }, "holds no WAL for pm03", false},
		"unclean":               {func(_ *needs, pm03 *model.Node, _ *model.Clone) { pm03.Unclean, pm03.Online = true, false }, "put that right first", false},
		"joins":                 {func(_ *needs, pm03 *model.Node, _ *model.Clone) { pm03.Pending, pm03.Online = true, false }, "put that right first", false},
		"nobody knows its role": {func(_ *needs, _ *model.Node, c *model.Clone) { delete(c.Roles, "pm03") }, "put that right first", false},
		"paused": {func(_ *needs, _ *model.Node, c *model.Clone) { c.Meta = map[string]string{model.MetaPaused: "true"} },
			"pgrex is paused", false},
		"no daemon": {func(n *needs, _ *model.Node, _ *model.Clone) {
			n.status = func(ctx context.Context) (controller.Status, error) {
				return controller.FetchStatus(ctx, t.TempDir()+"/none")
			}
		}, "no pgrex answers at ", false},
		"a daemon that hangs": {func(n *needs, _ *model.Node, _ *model.Clone) {
			n.status = says(func(s *controller.Status) { s.Read = s.Read.Add(-3 * time.Minute) })
		}, "pgrex here has last looked at the cluster at ", false},
		"a daemon that does nothing": {func(n *needs, _ *model.Node, _ *model.Clone) {
			n.status = says(func(s *controller.Status) { s.DryRun = true })
		}, "makes no slots (--dry-run)", false},
		"another database's daemon": {func(n *needs, _ *model.Node, _ *model.Clone) {
			n.status = says(func(s *controller.Status) { s.Primitive = "crm" })
		}, `is that of the database "crm"`, false},
		"the daemon does not know": {func(n *needs, _ *model.Node, _ *model.Clone) {
			n.status = says(func(s *controller.Status) { s.Forecast[1].Way = model.WayUnknown })
		}, `pgrex here foretells "unknown" for it`, false},
		"the daemon says nothing": {func(n *needs, _ *model.Node, _ *model.Clone) {
			n.status = says(func(s *controller.Status) { s.Forecast = s.Forecast[:1] })
		}, "pgrex here foretells nothing for it", false},
	} {
		t.Run(name, func(t *testing.T) {
			for _, givenUp := range []bool{false, true} {
				n := standbyOf(t, test.change)
				if givenUp {
					n.givenUp = []string{"pm03"}
				}
				err := n.gather(t.Context())
				if refused := !givenUp || test.always; refused != (err != nil) || refused && !strings.Contains(err.Error(), test.says) {
					t.Errorf("given up %t: %v", givenUp, err)
				}
			}
		})
	}
}

// A standby that runs says itself what it has, and what its slots hold. Who answers in its place does not count.
func TestMemberIsAsked(t *testing.T) {
	t.Parallel()
	primary := pgserver.New(t)
	standby := primary.Standby()
	standby.SQL("SELECT pg_create_physical_replication_slot('pgrex_pm02', true)")
	held, err := model.ParseLSN(standby.SQL("SELECT restart_lsn FROM pg_replication_slots"))
	if err != nil {
		t.Fatal(err)
	}
	asked := func(server *pgserver.Server, system string) (*needs, error) {
		n := standbyOf(t, func(n *needs, _ *model.Node, c *model.Clone) {
			n.Instance.SystemID = system
			c.Roles["pm03"] = model.RoleUnpromoted
		})
		n.conninfo = server.Conninfo()
		return n, n.member(t.Context(), "pm03", map[string]string{"pm03": "127.0.0.1"})
	}
	own := primary.SQL("SELECT system_identifier FROM pg_control_system()")
	n, err := asked(standby, own)
	if err != nil || len(n.found) != 2 || n.found[0].Who != "pm03, what it has" || n.found[0].From < held ||
		n.found[1] != (Need{"the slot pgrex_pm02 on pm03", held}) {
		t.Errorf("it needs %v, %v; the slot holds %s", n.found, err, held)
	}
	if _, err := asked(primary, own); err == nil || !strings.Contains(err.Error(), "a primary answers") {
		t.Errorf("a primary: %v", err)
	}
	if _, err := asked(standby, "8"); err == nil || !strings.Contains(err.Error(), "is another database") {
		t.Errorf("another database: %v", err)
	}
	standby.Stop("fast")
	if _, err := asked(standby, own); err == nil || !strings.Contains(err.Error(), "runs and could not be asked") {
		t.Errorf("it has ended: %v", err)
	}
}

// What prunes is one action, and shows what it is about.
func TestPruneShows(t *testing.T) {
	folder, to := archive(t, "000000010000000000000001"), t.TempDir()
	for move, want := range map[string]string{"": "1. remove 1 files of ", to: "1. move 1 files of "} {
		w, err := (&Archive{Move: move, NoBackups: true}).choose(t.Context(), folder, from(0x9000000))
		if err != nil {
			t.Fatal(err)
		}
		var said []string
		operation.ShowActions(w.Actions, func(line string) { said = append(said, line) })
		if len(said) != 1 || !strings.HasPrefix(said[0], want) || !strings.Contains(said[0], " from "+folder) ||
			!slices.Contains(w.Says, "  from 0/9000000 on: somebody") || !slices.Contains(w.Says, "  000000010000000000000001") {
			t.Errorf("it shows %q, and says %q", said, w.Says)
		}
	}
}

// An archive of many files: few names are held and printed, the oldest go first, and an interrupt ends it. What came
// since it was shown stays.
func TestManyArchived(t *testing.T) {
	const all = 2*atOnce + 5
	folder := archive(t)
	name := func(n int) string { return fmt.Sprintf("%08X%08X%08X", 1, n/256, n%256) }
	for i := range all + 1 { // the last one is needed
		write(t, filepath.Join(folder, name(i)), segmentOf(system))
	}
	a := &Archive{NoBackups: true}
	interrupted, interrupt := context.WithCancelCause(t.Context())
	interrupt(errInterrupted)
	if _, err := a.choose(interrupted, folder, from(model.LSN(all*mib16))); !errors.Is(err, errInterrupted) {
		t.Errorf("looking goes on: %v", err)
	}
	w, err := a.choose(t.Context(), folder, from(model.LSN(all*mib16)))
	if err != nil {
		t.Fatal(err)
	}
	if len(w.Says) > shown+10 || !slices.Contains(w.Says, fmt.Sprintf("  and %d more, the oldest first", all-shown)) ||
		!strings.Contains(w.Actions[0].String(), fmt.Sprintf("remove %d files", all)) {
		t.Errorf("it says %d lines, the last ones %q, and would %v", len(w.Says), w.Says[len(w.Says)-2:], w.Actions)
	}

	seen := time.Now()
	p := Pruning{First: all, Segment: mib16}
	const most = atOnce + 7
	ctx, cancel := context.WithCancelCause(t.Context())
	var gone []string
	done, err := removeOldest(ctx, folder, p, seen, func(_ context.Context, path string) error {
		if gone = append(gone, filepath.Base(path)); len(gone) == most {
			cancel(errInterrupted)
		}
		return os.Remove(path)
	})
	if done != most || !errors.Is(err, errInterrupted) || gone[0] != name(0) || gone[most-1] != name(most-1) || !slices.IsSorted(gone) {
		t.Errorf("%d are gone, from %s to %s: %v", done, gone[0], gone[len(gone)-1], err)
	}
	for restored := filepath.Join(folder, name(1)); ; { // by somebody, meanwhile
		write(t, restored, segmentOf(system))
		if !cameBefore(restored, seen) {
			break
		}
	}
	done, err = removeOldest(t.Context(), folder, p, seen, func(_ context.Context, path string) error { return os.Remove(path) })
	if done != all-most || err != nil {
		t.Errorf("then %d are gone: %v", done, err)
	}
	if left := filesIn(t, folder); !slices.Equal(left, []string{name(1), name(all)}) {
		t.Errorf("left are %d: %.200q", len(left), left)
	}
}

var errInterrupted = errors.New("interrupted")
