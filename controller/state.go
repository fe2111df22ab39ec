package controller

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/pgrex/pgrex/model"
)

// stateName is the file in the state folder. It is the daemon's alone: nobody else has a use for it.
const (
	stateName = "state.json"
	stateMode = 0o600
	// stateFormat is the layout's version. A file of another one is not read.
	stateFormat = 1
)

// clusterName is the cluster option that tells clusters apart.
const clusterName = "cluster-name"

// State is what the daemon knows from before it was started. All of it can be lost: then pgrex knows less for a while.
type State struct {
	Format int `json:"pgrex_state"`
	// Newest is the newest CIB seen, of the cluster with this name (the option cluster-name).
	Cluster string        `json:"cluster"`
	Newest  model.Version `json:"newest_version"`
	Rates   keptRates     `json:"wal_rates"`
}

// keptRates are rates as they were measured up to some time, on the database with a system identifier.
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

// LoadState reads the state in a folder. That there is none, or no folder, is no error.
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

// save replaces the state in a folder, in one step.
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

// newest is the newest CIB seen before the start, of the cluster that c is.
func (s State) newest(c model.Cluster) model.Version {
	if s.Cluster != c.Properties[clusterName] {
		return model.Version{}
	}
	return s.Newest
}

// keeper writes the state down: at once where the newest CIB is another one, the rates now and then.
type keeper struct {
	folder  string // "" to keep nothing
	written State
	problem string // why the last attempt failed
}

// keepEvery is how old the rates may be that a killed daemon leaves.
const keepEvery = 5 * time.Minute

// due reports whether a state is worth writing.
func (k *keeper) due(s State) bool {
	if k.folder == "" || s.Newest == (model.Version{}) {
		return false
	}
	return k.written.Newest.ConfigurationOlder(s.Newest) || s.Cluster != k.written.Cluster || s.Rates.At.Sub(k.written.Rates.At) >= keepEvery
}

// keep writes a state. A problem is returned once, until it is another.
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
