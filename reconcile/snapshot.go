package reconcile

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"
)

// SnapshotFormat is the version of the snapshot's layout. It grows with every change that an older pgrex would
// misread.
const SnapshotFormat = 1

// Snapshot is everything that a plan is made from, as one JSON document. It holds no secret: Input has none.
type Snapshot struct {
	Format int       `json:"pgrex_snapshot"`
	Taken  time.Time `json:"taken"`
	Input  Input     `json:"input"`
}

// Encode writes the document, indented, with a newline at its end.
func (s Snapshot) Encode() ([]byte, error) {
	s.Format = SnapshotFormat
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode snapshot: %w", err)
	}
	return append(data, '\n'), nil
}

// DecodeSnapshot reads a document. It refuses formats it does not know, unknown fields, and anything behind the
// document: a snapshot half understood would give another plan than on its host.
func DecodeSnapshot(data []byte) (Snapshot, error) {
	var head struct {
		Format int `json:"pgrex_snapshot"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return Snapshot{}, fmt.Errorf("not a snapshot, or cut off: %w; take a new one with 'pgrex snapshot'", err)
	}
	switch {
	case head.Format == 0:
		return Snapshot{}, fmt.Errorf("not a snapshot: it has no pgrex_snapshot; take one with 'pgrex snapshot'")
	case head.Format != SnapshotFormat:
		return Snapshot{}, fmt.Errorf("snapshot format %d, but this pgrex reads %d only: use the pgrex that wrote it",
			head.Format, SnapshotFormat)
	}
	var s Snapshot
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&s); err != nil {
		return Snapshot{}, fmt.Errorf("snapshot: %w; take a new one with 'pgrex snapshot'", err)
	}
	return s, nil
}
