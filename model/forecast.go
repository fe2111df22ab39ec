package model

import "strings"

// Way is how a host comes back to a primary.
type Way string

// The ways, the cheapest first. Unknown is not the worst: it says that nothing can be said.
const (
	WayStream  Way = "stream"  // by itself
	WayUnheld  Way = "unheld"  // it streams, but through a slot that PostgreSQL has given up: once it is away, nothing is held
	WayRewind  Way = "rewind"  // with pg_rewind, at worst
	WayCopy    Way = "copy"    // with a copy of the database, or from an archive
	WayUnknown Way = "unknown" // nobody can tell
)

// FormerForecastAttribute is the attribute of older versions, without the primitive's id in its name. If there are
// several databases, it has the forecast of the one that wrote last.
const FormerForecastAttribute = "pgrex-forecast"

// ForecastAttribute returns the name of the transient node attribute in which each host publishes its forecast for a
// database.
func ForecastAttribute(primitive string) string { return FormerForecastAttribute + "-" + primitive }

// Forecast tells how a host would come back if another one, the candidate, were promoted now; where the candidate is the
// primary, how it comes back as things are.
type Forecast struct {
	Candidate string `json:"candidate"`
	Host      string `json:"host"`
	Way       Way    `json:"way"`
	Why       string `json:"why,omitempty"` // one sentence; "" where only the candidate's attribute is known
}

// FormatForecasts writes a candidate's forecasts as its node attribute: "pm01=rewind,pm03=stream".
func FormatForecasts(forecasts []Forecast) string {
	var parts []string
	for _, f := range forecasts {
		parts = append(parts, f.Host+"="+string(f.Way))
	}
	return strings.Join(parts, ",")
}

// ForecastIn finds what a candidate's node attribute says of a host. What is not there, or not understood, is unknown.
func ForecastIn(attribute, host string) Way {
	for part := range strings.SplitSeq(attribute, ",") {
		name, way, _ := strings.Cut(part, "=")
		if name != host {
			continue
		}
		switch w := Way(way); w {
		case WayStream, WayUnheld, WayRewind, WayCopy:
			return w
		case WayUnknown:
		}
	}
	return WayUnknown
}
