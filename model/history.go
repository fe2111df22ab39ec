package model

import (
	"fmt"
	"strconv"
	"strings"
)

// Timeline is one of a server's timelines, and where it began. The first has no beginning.
type Timeline struct {
	ID    uint32 `json:"id"`
	Begin LSN    `json:"begin,omitempty"`
}

// ParseHistory reads a timeline's history file (readTimeLineHistory): a line for each older timeline, with where it was
// left. The timeline itself comes last.
func ParseHistory(timeline uint32, text string) ([]Timeline, error) {
	var all []Timeline
	var begin LSN
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		if len(fields) < 2 {
			return nil, fmt.Errorf("the history of timeline %d has the line %q", timeline, strings.TrimSpace(line))
		}
		id, err := strconv.ParseUint(fields[0], 10, 32)
		if err != nil {
			return nil, fmt.Errorf("the history of timeline %d: %w", timeline, err)
		}
		left, err := ParseLSN(fields[1])
		if err != nil {
			return nil, fmt.Errorf("the history of timeline %d: %w", timeline, err)
		}
		all = append(all, Timeline{uint32(id), begin})
		begin = left
	}
	return append(all, Timeline{timeline, begin}), nil
}
