package cib

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
)

// Tools is what Pacemaker's tools on this host are made for.
type Tools struct {
	Version    string // the release, as crm_mon --version has it: "2.1.5"
	featureSet string // crm_feature_set of an empty CIB: "3.16.1"
	schema     string // the newest that they know, its validate-with: "pacemaker-3.9"
}

// Tools asks crm_mon and cibadmin, again only once crm_mon is another file. It needs no cluster. Its errors are those
// of Read.
func (c *Client) Tools(ctx context.Context) (Tools, error) {
	var mon os.FileInfo
	if path, err := exec.LookPath(c.crmMon()); err == nil {
		mon, _ = os.Stat(path) // without it nothing is remembered
	}
	c.mu.Lock()
	known := c.tools != nil && mon != nil && os.SameFile(c.mon, mon) && c.mon.ModTime().Equal(mon.ModTime())
	if known {
		defer c.mu.Unlock()
		return *c.tools, nil
	}
	c.mu.Unlock()
	version, err := c.ask(ctx, maxReport, c.crmMon(), "--version")
	if err != nil {
		return Tools{}, err
	}
	empty, err := c.ask(ctx, maxReport, c.cibAdmin(), "--empty")
	if err != nil {
		return Tools{}, err
	}
	root, err := readDocument(empty)
	if err != nil {
		return Tools{}, fmt.Errorf("%s --empty: %w", c.cibAdmin(), err)
	}
	first, _, _ := strings.Cut(string(version), "\n")
	release := strings.TrimPrefix(strings.TrimSpace(first), "Pacemaker ")
	tools := Tools{release, attr(root, "crm_feature_set"), attr(root, "validate-with")}
	c.mu.Lock()
	defer c.mu.Unlock()
	if mon != nil {
		c.tools, c.mon = &tools, mon
	}
	return tools, nil
}

func (c *Client) forgetTools() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tools = nil
}

// release is the version without what a distribution adds, as in "2.1.5-9.el9".
func (t Tools) release() string {
	release, _, _ := strings.Cut(t.Version, "-")
	return release
}

// know refuses a CIB that is newer than the tools. Tools that know its schema would read it, and misread it: those
// before 2.1.7 take every node with epoch times for offline.
func (t Tools) know(d *document) error {
	if newer(attr(d.root, "crm_feature_set"), t.featureSet) ||
		newer(strings.TrimPrefix(attr(d.root, "validate-with"), schemaPrefix), strings.TrimPrefix(t.schema, schemaPrefix)) {
		return unparseable("it is newer than Pacemaker's tools here%s; upgrade Pacemaker on this host", t.about(d))
	}
	return nil
}

const schemaPrefix = "pacemaker-"

// about names both sides, for the end of an error.
func (t Tools) about(d *document) string {
	writer, _, _ := strings.Cut(d.properties.values["dc-version"], "-") // and a commit
	if writer == "" {
		writer = "an unknown release"
	}
	return fmt.Sprintf(" (the CIB is of Pacemaker %s, feature set %s, schema %s; the tools are of %s, feature set %s, schema %s)",
		writer, orElse(attr(d.root, "crm_feature_set"), "unknown"), orElse(attr(d.root, "validate-with"), "unknown"),
		t.Version, t.featureSet, t.schema)
}

// newer compares versions of numbers with dots between them (compare_version). A string that is no such version is
// never newer.
func newer(a, b string) bool {
	numbers := func(version string) (all []int) {
		for part := range strings.SplitSeq(version, ".") {
			n, err := strconv.Atoi(part)
			if err != nil {
				return nil
			}
			all = append(all, n)
		}
		return all
	}
	x, y := numbers(a), numbers(b)
	return x != nil && y != nil && slices.CompareFunc(x, y, cmp.Compare) > 0
}

// AgentVersion asks the host's package manager for the version of the package that a resource agent comes from, such as
// "1:4.12.0-2". The agent's own metadata have none. "" where nobody knows.
func (c *Client) AgentVersion(ctx context.Context, agent string) string {
	parts := strings.Split(agent, ":")
	if len(parts) != 3 || strings.ContainsAny(agent, "/") {
		return ""
	}
	file := "/usr/lib/ocf/resource.d/" + parts[1] + "/" + parts[2]
	if out, err := c.ask(ctx, maxName, "rpm", "--query", "--queryformat=%{VERSION}-%{RELEASE}", "--file", file); err == nil {
		return strings.TrimSpace(string(out))
	}
	out, err := c.ask(ctx, maxName, "dpkg-query", "--search", file)
	if err != nil {
		return ""
	}
	name, _, _ := strings.Cut(string(out), ":")
	out, err = c.ask(ctx, maxName, "dpkg-query", "--show", "--showformat=${Version}", name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}
