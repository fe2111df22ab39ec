package web

import (
	"fmt"
	"math"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/pgrex/pgrex/controller"
	"github.com/pgrex/pgrex/model"
)

// Check is a health check: the path without its slash.
type Check string

// The checks, under the names that Patroni's REST API has for them.
const (
	Primary   Check = "primary"
	Replica   Check = "replica"
	Health    Check = "health"
	Liveness  Check = "liveness"
	Readiness Check = "readiness"
)

var checks = []Check{Primary, Replica, Health, Liveness, Readiness}

// freshness is how old a look may be that a check counts on. The daemon looks every second.
const freshness = 3 * time.Second

// readFreshness is how old a look at the cluster may be on which a check counts that says which host is what. The daemon
// looks at it every 10 seconds, and at each change of its configuration; steps that fail may take 10 seconds more.
const readFreshness = 25 * time.Second

// doubts are conditions under which nobody is told that this host is what it seems to be.
var doubts = []model.Code{model.CodeNoQuorum, model.CodeSplitBrain, model.CodeCIBStale, model.CodeOtherSystem}

// Decide answers a check: an HTTP status code, and why. query is the raw query of the URL. status is nil if no daemon answers.
func Decide(check Check, query string, status *controller.Status, now time.Time) (code int, why string) {
	lag, err := lagIn(check, query)
	if err != nil {
		return http.StatusBadRequest, err.Error()
	}
	if no := verdict(check, lag, status, now); no != "" {
		return http.StatusServiceUnavailable, no
	}
	return http.StatusOK, string(check)
}

// verdict is why a check fails; "" if it succeeds.
func verdict(check Check, lag *uint64, status *controller.Status, now time.Time) string {
	switch {
	case status == nil:
		return "no daemon answers"
	case now.Sub(status.Looked).Abs() > freshness: // an earlier time is as wrong as a later one
		return fmt.Sprintf("the last look is %.0f s old", now.Sub(status.Looked).Seconds())
	case check == Liveness:
		return ""
	case status.Role != model.Primary && status.Role != model.Standby:
		return "in transition"
	case status.Server.State != model.ServerUp:
		return "PostgreSQL is " + string(status.Server.State)
	case check == Health:
		return ""
	case now.Sub(status.Read).Abs() > readFreshness:
		return fmt.Sprintf("the last look at the cluster is %.0f s old", now.Sub(status.Read).Seconds())
	}
	for _, c := range status.Conditions {
		if slices.Contains(doubts, c.Code) {
			return "in doubt: " + string(c.Code)
		}
	}
	switch {
	case check == Primary && status.Role != model.Primary:
		return "this host is a standby"
	case check == Replica && status.Role != model.Standby:
		return "this host is the primary"
	case check == Readiness && status.Role == model.Standby && !status.Server.Streaming:
		return "this standby does not stream"
	case lag != nil:
		return behind(status, *lag)
	}
	return ""
}

// behind is why this standby is too far behind the primary for a limit in bytes.
func behind(status *controller.Status, limit uint64) string {
	for _, m := range status.Members {
		switch {
		case model.FoldNode(m.Host) != model.FoldNode(status.Node):
		case m.LagBytes == nil:
		case *m.LagBytes > limit:
			return fmt.Sprintf("%s behind", model.FormatBytes(*m.LagBytes))
		default:
			return ""
		}
	}
	return "it is not known how far this standby is behind"
}

// lagIn is the limit that a query sets for /replica, nil for none. Everything else in a query is an error: a misspelt limit
// would be none.
func lagIn(check Check, query string) (*uint64, error) {
	values, err := url.ParseQuery(query)
	if err != nil {
		return nil, fmt.Errorf("the query cannot be read: %w", err)
	}
	for name, given := range values {
		switch {
		case name != "lag" || check != Replica:
			return nil, fmt.Errorf("/%s has no parameter %q", check, name)
		case len(given) > 1:
			return nil, fmt.Errorf("lag is there %d times", len(given))
		}
	}
	if len(values) == 0 {
		return nil, nil
	}
	limit, err := sizeOf(values.Get("lag"))
	return &limit, err
}

// sizePattern is a size as PostgreSQL's settings take it, without a fraction; without a unit it is in bytes.
var sizePattern = regexp.MustCompile(`^([0-9]{1,19})(|B|kB|MB|GB|TB)$`)

var shifts = map[string]uint{"": 0, "B": 0, "kB": 10, "MB": 20, "GB": 30, "TB": 40}

func sizeOf(text string) (uint64, error) {
	parts := sizePattern.FindStringSubmatch(text)
	if parts == nil {
		return 0, fmt.Errorf("lag=%q is no size: write it as 1048576, 512kB, 16MB, 1GB or 1TB", text)
	}
	n, err := strconv.ParseUint(parts[1], 10, 64)
	shift := shifts[parts[2]]
	if err != nil || n > math.MaxInt64>>shift {
		return 0, fmt.Errorf("lag=%q is too much", text)
	}
	return n << shift, nil
}
