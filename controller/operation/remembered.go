package operation

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"

	"github.com/pgrex/pgrex/model"
)

// The files of the ways back without a person in the state folder. The process that comes back without a person holds
// the lock as long as it runs.
const (
	rememberedName = "auto-rejoin.json"
	runningName    = "auto-rejoin.lock"
	// rememberedFormat is the version of the layout. pgrex reads no other.
	rememberedFormat = 1
)

// remembered is the file.
type remembered struct {
	Format int `json:"pgrex_auto_rejoin"`
	model.AutoRejoin
}

// Remembered reads what a host remembers of its ways back without a person. If there is no file, it has never tried.
func Remembered(folder string) (model.AutoRejoin, error) {
	path := filepath.Join(folder, rememberedName)
	var r remembered
	err := decodeOwn(path, &r)
	if errors.Is(err, fs.ErrNotExist) {
		return model.AutoRejoin{}, nil
	}
	if err == nil && r.Format != rememberedFormat {
		err = fmt.Errorf("its format is %d, and this pgrex reads %d", r.Format, rememberedFormat)
	}
	if err != nil {
		return model.AutoRejoin{}, fmt.Errorf("read what is remembered of ways back without a person: %w; if nothing else helps, remove %s", err, path)
	}
	r.Running = false
	return r.AutoRejoin, nil
}

// Remember keeps what a host is to remember of its ways back without a person. It is on disk when Remember returns.
func Remember(folder string, a model.AutoRejoin) error {
	a.Running = false
	data, err := json.MarshalIndent(remembered{rememberedFormat, a}, "", " ")
	if err == nil {
		err = replace(folder, rememberedName, data)
	}
	if err != nil {
		return fmt.Errorf("keep what is remembered of ways back without a person: %w", err)
	}
	return nil
}

// AutoRejoin is what a look has of Remembered. It is nil if this user may not read it. What cannot be read for any
// other reason counts as used up: nobody then knows how often this host has tried.
func AutoRejoin(folder string) *model.AutoRejoin {
	a, err := Remembered(folder)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nil
	case err != nil:
		a = model.AutoRejoin{Tries: model.MaxTries, Problem: err.Error()}
	}
	a.Running = isLocked(folder, runningName)
	return &a
}

// RunsAutoRejoin marks this process as the one that comes back without a person, until the result is closed. There is
// one for each state folder.
func RunsAutoRejoin(folder string) (io.Closer, error) {
	f, err := lock(folder, runningName)
	switch {
	case errors.Is(err, ErrUnderWay):
		return nil, errors.New("pgrex auto-rejoin already runs on this host: see systemctl status 'pgrex-rejoin*'")
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%w; pgrex.service makes the folder: type: sudo systemctl start pgrex", err)
	case err != nil:
		return nil, err
	}
	return f, nil
}
