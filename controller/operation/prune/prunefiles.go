package prune

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/pgrex/pgrex/controller/operation"
	"github.com/pgrex/pgrex/controller/operation/datadir"
	"github.com/pgrex/pgrex/model"
)

// intoArchive finds the folder in a command such as "cp %p /archive/%f", "test ! -f /archive/%f && gzip <%p
// >/archive/%f.gz" or "cp /archive/%f %p".
var intoArchive = regexp.MustCompile(`([^\s'"<>=]+)/%f`)

// elsewhere tells that a command leads to another host.
var elsewhere = regexp.MustCompile(`\b(ssh|scp|sftp|rsync)\b`)

// archiveFolder is the folder that WAL is archived into, or else restored from. A setting that leads elsewhere than to
// one folder of this host says nothing.
func archiveFolder(settings map[string]string) (string, error) {
	commands := []string{settings["restore_command"]}
	if settings["archive_mode"] != "off" {
		commands = []string{settings["archive_command"], settings["restore_command"]}
	}
	var folders []string
	for _, command := range commands {
		if elsewhere.MatchString(command) {
			folders = append(folders, "another host's")
		}
		for _, m := range intoArchive.FindAllStringSubmatch(command, -1) {
			folders = append(folders, filepath.Clean(m[1]))
		}
	}
	slices.Sort(folders)
	if folders = slices.Compact(folders); len(folders) != 1 || !filepath.IsAbs(folders[0]) {
		return "", errors.New("neither archive_command nor restore_command tells one folder here, as 'cp %p " +
			"/archive/%f' does: name it with --archive")
	}
	return folders[0], nil
}

// atOnce is how many names of an archive are held in memory, and shown is how many are printed.
const (
	atOnce = 10_000
	shown  = 100
)

// choose picks what may go, and makes the step. It reads the folder file by file, and holds few names in memory.
func (a *Archive) choose(ctx context.Context, folder string, n *needs) (operation.Work, error) {
	if _, err := os.Stat(filepath.Join(folder, "archive_status")); err == nil {
		return operation.Work{}, fmt.Errorf("%s is the pg_wal of a database, whose WAL PostgreSQL alone removes, "+
			"and no archive", folder)
	}
	if err := ofAnotherTool(folder); err != nil {
		return operation.Work{}, err
	}
	var archived []archiveFile
	err := eachFile(ctx, folder, func(name string) error {
		if f, ok := parseArchived(name, n.Instance.WALSegmentSize); ok && f.backup {
			archived = append(archived, f)
		}
		return nil
	})
	if err != nil {
		return operation.Work{}, err
	}
	for _, backup := range a.BackupFolders {
		from, err := beginOfBackup(backup)
		if err != nil {
			return operation.Work{}, err
		}
		n.add(from, "the backup in %s", backup)
	}
	p := decide(archived, n.found, a.Backups, n.Instance.WALSegmentSize)
	w := operation.Work{Says: []string{"needed in " + folder + ":"}}
	for _, need := range p.Needs {
		w.Says = append(w.Says, fmt.Sprintf("  from %s on: %s", need.From, need.Who))
	}
	gone, err := count(ctx, folder, p, n.Instance.SystemID)
	if err != nil {
		return operation.Work{}, err
	}
	if gone.files == 0 {
		w.Says = append(w.Says, "every file is needed")
		return w, nil
	}
	known, err := a.backups(folder, p.Backups)
	if err != nil {
		return operation.Work{}, err
	}
	w.Says = append(append(w.Says, known...), gone.says(folder)...)
	return a.step(w, folder, p, gone)
}

// eachFile calls see with the name of each regular file of the archive, up to the first error.
func eachFile(ctx context.Context, folder string, see func(name string) error) error {
	return datadir.EachIn(folder, func(e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return fmt.Errorf("look into the archive: %w", err)
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case e.Type().IsRegular():
			return see(e.Name())
		}
		return nil
	})
}

// surplus is what goes from an archive.
type surplus struct {
	files  int
	bytes  uint64
	first  []archiveFile // the oldest
	proven bool          // at least one shows that it is of this database
	seen   time.Time     // files that came later stay
}

// count looks at all that goes. WAL of another database is an error.
func count(ctx context.Context, folder string, p Pruning, systemID string) (gone surplus, err error) {
	gone.seen = time.Now()
	var first oldest
	err = eachFile(ctx, folder, func(name string) error {
		f, goes := p.goes(name)
		if !goes {
			return nil
		}
		path := filepath.Join(folder, name)
		info, err := os.Lstat(path)
		if os.IsNotExist(err) { // somebody has removed it
			return nil
		}
		if err != nil {
			return err
		}
		other, known := systemOf(path)
		if known && other != systemID {
			return fmt.Errorf("%s is WAL of another database: its system identifier is %s, and here it is %s; is %s "+
				"the right archive?", path, other, systemID, folder)
		}
		gone.proven = gone.proven || known
		gone.files++
		gone.bytes += uint64(info.Size())
		first.add(f)
		return nil
	})
	gone.first = first.sorted()
	return gone, err
}

// says are the lines that the operator sees.
func (g surplus) says(folder string) []string {
	lines := []string{"not needed:"}
	for _, f := range g.first[:min(len(g.first), shown)] {
		lines = append(lines, "  "+f.name)
	}
	if g.files > shown {
		lines = append(lines, fmt.Sprintf("  and %d more, the oldest first", g.files-shown))
	}
	if !g.proven {
		lines = append(lines, "warning: pgrex cannot tell which database these files belong to (they are compressed, or "+
			"not WAL): make sure that "+folder+" is this database's archive")
	}
	return lines
}

// backups returns texts on which backups are known, and which cannot be known. It returns an error if none is known:
// removing all WAL before the last checkpoint could make an unknown backup useless.
func (a *Archive) backups(folder string, archived int) (says []string, err error) {
	switch {
	case a.NoBackups && archived > 0:
		return nil, fmt.Errorf("--no-backups: history files in %s (*.backup) tell of %d backups; to give them up, "+
			"--keep-backups 0", folder, archived)
	case a.NoBackups:
		return []string{"backups: none, as --no-backups says"}, nil
	case archived+len(a.BackupFolders) == 0:
		return nil, fmt.Errorf("nothing is removed: no backup is known, because no history file (*.backup) is in "+
			"%s; name the folder of each base backup with --backup, or say --no-backups if there is none that needs "+
			"this archive", folder)
	}
	return []string{
		fmt.Sprintf("backups: %d by their history files in the archive, %d named with --backup", archived,
			len(a.BackupFolders)),
		"a history file may also be of a copy that became a standby; a backup is not known that was taken on a " +
			"standby, or by pgBackRest, Barman or WAL-G into a repository of their own: if it needs this archive, " +
			"name its folder with --backup",
	}, nil
}

// foreign are the archives of other tools. Only the tool knows what its backups need. Such an archive is recognised by
// a file or folder in it, or near it.
var foreign = []struct{ tool, near, instead string }{
	{"Barman", "../xlog.db", "barman delete, or its retention_policy"},
	{"Barman", "xlog.db", "barman delete, or its retention_policy"},
	{"WAL-G", "../basebackups_005", "wal-g delete"},
	{"pgBackRest", "../../archive.info", "pgbackrest expire"},
}

// ofAnotherTool returns an error if a folder is the archive of another tool. The path is not cleaned: if the folder is
// a link, ".." has to be resolved by the file system.
func ofAnotherTool(folder string) error {
	for _, f := range foreign {
		if _, err := os.Stat(folder + "/" + f.near); err == nil {
			return fmt.Errorf("%s is an archive of %s, which knows alone what its backups need: type %s", folder,
				f.tool, f.instead)
		}
	}
	return nil
}

func (a *Archive) step(w operation.Work, folder string, p Pruning, gone surplus) (operation.Work, error) {
	text := fmt.Sprintf("remove %d files of %s from %s", gone.files, model.FormatBytes(gone.bytes), folder)
	remove := func(_ context.Context, path string) error { return os.Remove(path) }
	if a.Move != "" {
		if err := a.mayMove(folder); err != nil {
			return operation.Work{}, err
		}
		text = fmt.Sprintf("move %d files of %s from %s to %s", gone.files, model.FormatBytes(gone.bytes), folder,
			a.Move)
		remove = func(ctx context.Context, path string) error {
			return move(ctx, path, filepath.Join(a.Move, filepath.Base(path)))
		}
	}
	w.Actions = []operation.Action{operation.Program{Text: text, Run: func(ctx context.Context) error {
		done, err := removeOldest(ctx, folder, p, gone.seen, remove)
		if err != nil {
			return fmt.Errorf("%d of %d are done, run it again for the others: %w", done, gone.files, err)
		}
		if done < gone.files && a.Report != nil {
			a.Report(fmt.Sprintf("   %d of %d files: the others have changed meanwhile, or are gone", done, gone.files))
		}
		return datadir.SyncFolder(folder)
	}}}
	return w, nil
}

// removeOldest removes what goes, the oldest first: ending early leaves no gap. It reads the folder again for each part that is
// held in memory. It leaves files that came after they were counted: nobody has been shown them.
func removeOldest(
	ctx context.Context, folder string, p Pruning, seen time.Time, remove func(context.Context, string) error,
) (done int, err error) {
	for last := ""; ; {
		var next oldest
		err := eachFile(ctx, folder, func(name string) error {
			if f, goes := p.goes(name); goes && cameBefore(filepath.Join(folder, name), seen) {
				next.add(f)
			}
			return nil
		})
		files := next.sorted()
		if err != nil || len(files) == 0 {
			return done, err
		}
		if files[0].name == last { // removed, and still there
			return done, fmt.Errorf("%s shows the file %s after it was removed", folder, last)
		}
		for last = files[0].name; len(files) > 0; files = files[1:] {
			if ctx.Err() != nil {
				return done, context.Cause(ctx)
			}
			if err := remove(ctx, filepath.Join(folder, files[0].name)); err != nil && !errors.Is(err, os.ErrNotExist) {
				return done, err
			}
			done++
		}
	}
}

// cameBefore reports whether a file has been as it is since before a time.
func cameBefore(path string, seen time.Time) bool {
	info, err := os.Lstat(path)
	return err == nil && !time.Unix(info.Sys().(*syscall.Stat_t).Ctim.Unix()).After(seen)
}

// mayMove reports whether files can be moved there.
func (a *Archive) mayMove(folder string) error {
	to, err := os.Stat(a.Move)
	if err != nil {
		return fmt.Errorf("move: %w; make the folder first", err)
	}
	from, err := os.Stat(folder)
	switch {
	case err != nil:
		return err
	case !to.IsDir():
		return fmt.Errorf("move: %s is no folder", a.Move)
	case os.SameFile(from, to):
		return fmt.Errorf("move: %s is the archive itself", a.Move)
	}
	return nil
}

// move moves a file and overwrites none; to another file system it copies it whole before it removes it. A move that
// was killed between the two is finished.
func move(ctx context.Context, from, to string) error {
	if _, err := os.Lstat(to); err == nil {
		same, err := sameContent(ctx, from, to)
		if err != nil {
			return err
		}
		if !same {
			return fmt.Errorf("%s is there already", to)
		}
		return os.Remove(from)
	}
	err := os.Rename(from, to)
	if !errors.Is(err, syscall.EXDEV) {
		return err
	}
	if err := copyWhole(ctx, from, to); err != nil {
		return err
	}
	return os.Remove(from)
}

// sameContent reports whether two regular files are different ones of the same content.
func sameContent(ctx context.Context, one, other string) (bool, error) {
	a, errA := os.Lstat(one)
	b, errB := os.Lstat(other)
	if errA != nil || errB != nil || !b.Mode().IsRegular() || os.SameFile(a, b) || a.Size() != b.Size() {
		return false, nil
	}
	fileA, err := os.Open(one)
	if err != nil {
		return false, err
	}
	defer func() { _ = fileA.Close() }() // only read
	fileB, err := os.Open(other)
	if err != nil {
		return false, err
	}
	defer func() { _ = fileB.Close() }() // only read
	const part = 1 << 20
	textA, textB := make([]byte, part), make([]byte, part)
	for {
		nA, errA := io.ReadFull(datadir.Reader(ctx, fileA), textA)
		nB, errB := io.ReadFull(fileB, textB)
		ended := errors.Is(errA, io.EOF) || errors.Is(errA, io.ErrUnexpectedEOF)
		switch {
		case errA != nil && !ended:
			return false, errA
		case !bytes.Equal(textA[:nA], textB[:nB]) || (errA == nil) != (errB == nil):
			return false, nil
		case ended:
			return true, nil
		}
	}
}

// copyWhole copies a file. The new name has the whole file or nothing, even after a power cut.
func copyWhole(ctx context.Context, from, to string) (err error) {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = source.Close() }()
	temporary := to + ".pgrex-new"
	target, err := os.OpenFile(temporary, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(target, datadir.Reader(ctx, source))
	if err = errors.Join(err, target.Sync(), target.Close()); err != nil {
		return errors.Join(err, os.Remove(temporary))
	}
	if err := os.Rename(temporary, to); err != nil {
		return err
	}
	return datadir.SyncFolder(filepath.Dir(to))
}

// systemOf reads the system identifier that a segment begins with (XLogLongPageHeaderData); known is false where the
// file does not begin so, being compressed or cut off, for instance.
func systemOf(path string) (system string, known bool) {
	const infoAt, systemAt, size, longHeader = 2, 24, 32, 2
	f, err := os.Open(path)
	if err != nil {
		return "", false
	}
	defer func() { _ = f.Close() }()
	head := make([]byte, size)
	if _, err := io.ReadFull(f, head); err != nil || head[1] != 0xD1 || binary.NativeEndian.Uint16(head[infoAt:])&longHeader == 0 {
		return "", false
	}
	return strconv.FormatUint(binary.NativeEndian.Uint64(head[systemAt:]), 10), true
}

var startOfBackup = regexp.MustCompile(`(?m)^START WAL LOCATION: ([0-9A-F]+/[0-9A-F]+) `)

// beginOfBackup is from where on a base backup needs WAL.
func beginOfBackup(folder string) (model.LSN, error) {
	text, err := os.ReadFile(filepath.Join(folder, "backup_label"))
	if err != nil {
		return 0, fmt.Errorf("find where the backup begins: %w; it is the folder of a base backup, not packed", err)
	}
	m := startOfBackup.FindStringSubmatch(string(text))
	if m == nil {
		return 0, fmt.Errorf("find where the backup begins: %s does not tell", filepath.Join(folder, "backup_label"))
	}
	return model.ParseLSN(strings.TrimSpace(m[1]))
}
