package metrics

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	yaml "go.yaml.in/yaml/v3"
)

const monitoring = "../../hack/packaging/monitoring/"

// rule is an alert as the tests need it.
type rule struct {
	Alert       string
	Expr, For   string
	Labels      map[string]string
	Annotations map[string]string
}

// alerts are those of the package.
func alerts(t *testing.T) (all []rule) {
	t.Helper()
	var file struct {
		Groups []struct {
			Name  string
			Rules []rule
		}
	}
	text, err := os.ReadFile(monitoring + "pgrex.rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	for _, g := range file.Groups {
		all = append(all, g.Rules...)
	}
	if len(all) < 12 {
		t.Fatalf("there are %d alerts", len(all))
	}
	return all
}

// TestAlerts: each alert is tested, has a severity, and a link to what there is to do.
func TestAlerts(t *testing.T) {
	tests, err := os.ReadFile(monitoring + "pgrex.rules.test.yml")
	if err != nil {
		t.Fatal(err)
	}
	findings, err := os.ReadFile("../../docs/findings.md")
	if err != nil {
		t.Fatal(err)
	}
	document, err := os.ReadFile("../../docs/monitoring.md")
	if err != nil {
		t.Fatal(err)
	}
	const repository = "https://github.com/pgrex/pgrex/blob/main/docs/"
	for _, r := range alerts(t) {
		if !regexp.MustCompile(`alertname: `+r.Alert+`\n +exp_alerts:`).Match(tests) || !strings.Contains(string(tests), "alertname: "+r.Alert+"}") {
			t.Errorf("no test says when %s fires, or when not", r.Alert)
		}
		if !strings.Contains(string(document), "| `"+r.Alert+"` |") {
			t.Errorf("docs/monitoring.md does not have %s", r.Alert)
		}
		ofCondition := strings.Contains(r.Expr, "severity, subject)") // it has the condition's
		if s := r.Labels["severity"]; s != "critical" && s != "warning" && !ofCondition {
			t.Errorf("%s has the severity %q", r.Alert, s)
		}
		page, anchor, _ := strings.Cut(strings.TrimPrefix(r.Annotations["runbook_url"], repository), "#")
		switch {
		case page == "findings.md" && (strings.Contains(string(findings), `<a id="`+anchor+`"></a>`) || anchor == "{{ $labels.code }}" && ofCondition):
		case page == "monitoring.md" && anchor == "what-if-it-goes-wrong" && strings.Contains(string(document), "\n## What if it goes wrong\n"):
		default:
			t.Errorf("%s links to %s", r.Alert, r.Annotations["runbook_url"])
		}
		if r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
			t.Errorf("%s says nothing", r.Alert)
		}
		checkQuery(t, r.Alert, r.Expr)
	}
}

// TestDashboard: each panel says what it shows, is beside the others and has a query of its own data source.
func TestDashboard(t *testing.T) {
	var dashboard struct {
		Panels []struct {
			ID                 int
			Title, Description string
			Datasource         struct{ Type, UID string }
			GridPos            struct{ X, Y, W, H int }
			Targets            []struct{ Expr string }
		}
		Templating struct {
			List []struct{ Name, Type, Definition string }
		}
	}
	text, err := os.ReadFile(monitoring + "pgrex.dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	ids, taken, shown := map[int]bool{}, map[[2]int]string{}, ""
	for _, p := range dashboard.Panels {
		if p.Title == "" || p.Description == "" || ids[p.ID] || p.Datasource.UID != "${datasource}" || len(p.Targets) == 0 {
			t.Errorf("panel %d, %q, is incomplete", p.ID, p.Title)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" || x >= 24 {
					t.Fatalf("%q is over %q, or past the edge", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		for _, target := range p.Targets {
			shown += target.Expr
			if !strings.Contains(target.Expr, `cluster=~"$cluster", database=~"$database"`) {
				t.Errorf("%q is not of the cluster that was chosen: %s", p.Title, target.Expr)
			}
			checkQuery(t, p.Title, target.Expr)
		}
	}
	for _, wanted := range []string{"pgrex_slot_retained_bytes", "pgrex_wal_budget_bytes", "pgrex_wal_filesystem_avail_bytes", "pgrex_slot_time_left_seconds",
		"pgrex_forecast", "pgrex_condition_start_timestamp_seconds", "pgrex_member_lag_bytes"} {
		if !strings.Contains(shown, wanted) {
			t.Errorf("no panel shows %s", wanted)
		}
	}
	var variables []string
	for _, v := range dashboard.Templating.List {
		variables = append(variables, v.Name+" "+v.Type)
	}
	if want := []string{"datasource datasource", "cluster query", "database query"}; !slices.Equal(variables, want) {
		t.Errorf("its variables are %q, not %q", variables, want)
	}
}

var (
	selector   = regexp.MustCompile(`\b(pgrex_\w+)(?:\{([^}]*)\})?`)
	matcher    = regexp.MustCompile(`(\w+)(?:=~|!~|!=|=)"([^"]*)"`)
	suffixes   = regexp.MustCompile(`_(bucket|sum|count)$`)
	ofTarget   = []string{"cluster", databaseLabel, "job", "instance"}
	ofWords    = map[string][]string{"mode": modes, "role": roles, "status": walStatuses, "way": ways, "severity": {"info", "warning", "critical"}, "source": {"cib", "postgresql", "primary"}, "result": {"done", "failed"}}
	plainWords = regexp.MustCompile(`^\w+$`)
)

// checkQuery fails if a query asks for what there is not: a metric, a label or a word.
func checkQuery(t *testing.T, where, query string) {
	t.Helper()
	found := selector.FindAllStringSubmatch(query, -1)
	if len(found) == 0 {
		t.Errorf("%s asks for no metric of pgrex: %s", where, query)
	}
	all := append([]family{up}, families...)
	for _, f := range found {
		name := f[1]
		if histogram := suffixes.ReplaceAllString(name, ""); histogram == lookDuration {
			name = histogram
		}
		i := slices.IndexFunc(all, func(f family) bool { return f.name == name })
		if i < 0 {
			t.Errorf("%s asks for %s, which is no metric", where, f[1])
			continue
		}
		for _, m := range matcher.FindAllStringSubmatch(f[2], -1) {
			if !slices.Contains(append(ofTarget, all[i].labels...), m[1]) {
				t.Errorf("%s asks %s for the label %s, which it does not have", where, name, m[1])
			}
			if words := ofWords[m[1]]; words != nil && plainWords.MatchString(m[2]) && !slices.Contains(words, m[2]) {
				t.Errorf("%s asks %s for %s, which is no %s", where, name, m[2], m[1])
			}
		}
	}
}
