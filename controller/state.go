package controller

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"time"

	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
)

// stateName is the file in the state folder. Only the daemon writes it.
const (
	stateName = "state.json"
	stateMode = 0o600
	// stateFormat is the layout's version. A file of another one is not read.
	stateFormat = 1
)

// clusterName is the cluster option that tells clusters apart.
const clusterName = "cluster-name"

// State is what the daemon keeps across restarts. If it is lost, pgrex only knows less for a while.
type State struct {
	Format int `json:"pgrex_state"`
	// Newest is the newest CIB seen, of the cluster with this name (the option cluster-name).
	Cluster string        `json:"cluster"`
	Newest  model.Version `json:"newest_version"`
	Rates   keptRates     `json:"wal_rates"`
	// Standbys are the addresses from which the members streamed when this host was the primary, by folded name. While
	// no host is the primary, "pgrex start" asks the members there what data they have.
	Standbys map[string]string `json:"standby_addresses,omitempty"`
	// Primary is what this host had when it was last seen as the primary; nil if it never was.
	Primary *LastPrimary `json:"last_primary,omitempty"`
	// Standby is what this host had when it was last seen as a standby of the primary; nil if it never was.
	Standby *LastStandby `json:"last_standby,omitempty"`
}

// LastPrimary is what a host had when it was seen as the primary. Data of the same database that were put there later,
// such as a restored backup, are not those.
type LastPrimary struct {
	At       time.Time `json:"at"`
	System   string    `json:"system_id"`
	Timeline uint32    `json:"timeline"`
	Flushed  model.LSN `json:"flushed"`
}

// lastPrimary returns what this host has, if it is the primary. Otherwise it returns what is known from before.
func lastPrimary(who reconcile.Who, before *LastPrimary) *LastPrimary {
	i := who.Instance
	if who.Standing != model.Primary || i.State != model.ServerUp || i.InRecovery {
		return before
	}
	return &LastPrimary{time.Now(), i.SystemID, i.Timeline, i.Current}
}

// LastStandby is what a host had when it was seen as a standby of the primary.
type LastStandby struct {
	At       time.Time `json:"at"`
	System   string    `json:"system_id"`
	Timeline uint32    `json:"timeline"`
	// Replayed is the end of a record. What a standby has received may end within one, which no look at its WAL shows.
	Replayed model.LSN `json:"replayed"`
}

// lastStandby returns what this host has, if it is a standby that streams. Otherwise it returns what is known from before:
// without a walreceiver, the timeline is that of the control file, and may be an older one than that of the data.
func lastStandby(who reconcile.Who, before *LastStandby) *LastStandby {
	i := who.Instance
	if who.Standing != model.Standby || i.State != model.ServerUp || !i.InRecovery || !i.Receiver.Streaming() {
		return before
	}
	return &LastStandby{time.Now(), i.SystemID, i.Timeline, i.Current}
}

// same reports whether both are of the same database, as followed on the same timeline.
func (l *LastStandby) same(o *LastStandby) bool {
	return l == o || l != nil && o != nil && l.System == o.System && l.Timeline == o.Timeline
}

// same reports whether both are of the same reign, as far as that can be seen.
func (l *LastPrimary) same(o *LastPrimary) bool {
	return l == o || l != nil && o != nil && l.System == o.System && l.Timeline == o.Timeline
}

// keptRates are the rates measured up to the time At, on the database with the system identifier System.
type keptRates struct {
	At       time.Time     `json:"at"`
	System   string        `json:"system_id"`
	Since    time.Time     `json:"since"`
	Measured time.Duration `json:"measured_nanoseconds"`
	Sum      float64       `json:"sum"` // as in rates
	Parts    float64       `json:"parts"`
	Peaks    []keptPeak    `json:"peaks"`
}

type keptPeak struct {
	Begin time.Time `json:"begin"`
	Rate  float64   `json:"rate"` // bytes a second
}

// LoadState reads the state from a folder. If the file or the folder does not exist, it returns an empty state and no
// error.
func LoadState(folder string) (State, error) {
	data, err := os.ReadFile(filepath.Join(folder, stateName))
	if errors.Is(err, fs.ErrNotExist) {
		return State{}, nil
	}
	var s State
	if err == nil {
		decoder := json.NewDecoder(bytes.NewReader(data))
		decoder.DisallowUnknownFields()
		err = decoder.Decode(&s)
	}
	if err == nil && s.Format != stateFormat {
		err = fmt.Errorf("its format is %d, and this pgrex reads %d", s.Format, stateFormat)
	}
	if err != nil {
		return State{}, fmt.Errorf("read what was known before the start, in %s: %w; it is measured again", folder, err)
	}
	return s, nil
}

// save replaces the state in a folder atomically.
func (s State) save(folder string) error {
	s.Format = stateFormat
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	path := filepath.Join(folder, stateName)
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, stateMode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil { // or a power cut leaves an empty file
		return err
	}
	return os.Rename(path+".new", path)
}

// newest returns the version of the newest CIB seen before the start, or zero if that was of another cluster than c.
func (s State) newest(c model.Cluster) model.Version {
	if s.Cluster != c.Properties[clusterName] {
		return model.Version{}
	}
	return s.Newest
}

// keeper saves the state: at once if the CIB is newer, a standby's address has changed, or this host has become the
// primary or a standby; and now and then. So what it says of this host's data is never older than what the CIB says of
// them. Of a standby, Replayed and At may be up to keepEvery old.
type keeper struct {
	folder  string // "" to keep nothing
	written State
	problem string // why the last attempt failed
}

// keepEvery is how old the saved rates of a killed daemon can be.
const keepEvery = 5 * time.Minute

// due reports whether a state is worth writing.
func (k *keeper) due(s State) bool {
	if k.folder == "" || s.Newest == (model.Version{}) {
		return false
	}
	return k.written.Newest.ConfigurationOlder(s.Newest) || s.Cluster != k.written.Cluster ||
		!maps.Equal(s.Standbys, k.written.Standbys) || !s.Primary.same(k.written.Primary) ||
		!s.Standby.same(k.written.Standby) || s.Rates.At.Sub(k.written.Rates.At) >= keepEvery
}

// keep saves a state. It returns the same error only once in a row.
func (k *keeper) keep(s State) error {
	k.written = s // what cannot be written is not tried again at each look
	err := s.save(k.folder)
	if err == nil {
		k.problem = ""
		return nil
	}
	if err.Error() == k.problem {
		return nil
	}
	k.problem = err.Error()
	return fmt.Errorf("keep in %s what a restart should not forget: %w", k.folder, err)
}
