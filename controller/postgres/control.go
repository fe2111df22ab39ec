package postgres

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"

	"github.com/pgrex/pgrex/model"
)

// Where a control file has what is read of it (PostgreSQL, pg_control.h, ControlFileData). These fields have stood there
// since long before PostgreSQL 13.
const (
	controlVersionAt = 8
	controlStateAt   = 16
)

// controlSums are, by the version of the control file, where its checksum stands, over all that comes before: 13 to 16,
// 17, and 18. What another version has where is not known.
var controlSums = map[uint32]int{1300: 288, 1700: 288, 1800: 292}

// controlStates are the words of pg_controldata, in the order of DBState.
var controlStates = []model.DatabaseState{
	"starting up", "shut down", "shut down in recovery", "shutting down", "in crash recovery", "in archive recovery", model.InProduction,
}

// controlState reads the state in the control file of a data folder. The file is written in one piece of a sector, and
// its checksum is checked.
func controlState(folder string) (model.DatabaseState, error) {
	path := filepath.Join(folder, "global", "pg_control")
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }() // only read
	data, err := io.ReadAll(io.LimitReader(f, 1<<13))
	if err != nil {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	state, err := stateIn(data)
	if err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	return state, nil
}

func stateIn(control []byte) (model.DatabaseState, error) {
	if len(control) < controlStateAt+4 {
		return "", fmt.Errorf("it has %d bytes only", len(control))
	}
	number := func(at int) uint32 { return binary.NativeEndian.Uint32(control[at:]) }
	version := number(controlVersionAt)
	sum, known := controlSums[version]
	switch state := number(controlStateAt); {
	case !known:
		return "", fmt.Errorf("its version is %d, which pgrex does not know", version)
	case len(control) < sum+4:
		return "", fmt.Errorf("it has %d bytes only", len(control))
	case crc32.Checksum(control[:sum], castagnoli) != number(sum):
		return "", fmt.Errorf("its checksum is wrong")
	case int(state) >= len(controlStates):
		return "", fmt.Errorf("its state is %d, which pgrex does not know", state)
	default:
		return controlStates[state], nil
	}
}

// castagnoli is the polynomial of PostgreSQL's checksums (CRC-32C).
var castagnoli = crc32.MakeTable(crc32.Castagnoli)
