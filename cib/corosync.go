package cib

import (
	"cmp"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/pgrex/pgrex/model"
)

// CorosyncConf is where corosync has its configuration. Everybody may read it.
const CorosyncConf = "/etc/corosync/corosync.conf"

// RingAddresses reads the addresses of corosync's first ring from its configuration, by folded node name
// (corosync.conf(5), nodelist). A node without a name is known by its address, as to Pacemaker.
func RingAddresses(file string) (map[string]string, error) {
	addresses := map[string]string{}
	var name, ring string
	err := walk(file, func(section, key, value string) {
		switch key {
		case "{":
			name, ring = "", ""
		case "}":
			if section == nodeSection && ring != "" {
				addresses[model.FoldNode(cmp.Or(name, ring))] = ring
			}
		case "name":
			name = value
		case "ring0_addr":
			ring = value
		}
	})
	if err != nil {
		return nil, fmt.Errorf("read corosync's ring addresses: %w", err)
	}
	return addresses, nil
}

// OddVotes is what in corosync's configuration can give the quorum to no more than half of all nodes; "" if nothing can
// (votequorum(5)). It does not show what was set while corosync runs.
func OddVotes(file string) (why string, err error) {
	nodes, expected := 0, 0
	err = walk(file, func(section, key, value string) {
		at := section + "." + key
		switch at {
		case "quorum.last_man_standing", "quorum.auto_tie_breaker", "quorum.allow_downscale":
			if value != "0" && value != "no" {
				why = at + " is " + value
			}
		case "quorum.votes", nodeSection + ".quorum_votes":
			if value != "1" {
				why = at + " is " + value
			}
		case "quorum/device.{":
			why = "there is a quorum device"
		case "quorum.expected_votes":
			if n, notNumber := strconv.Atoi(value); notNumber == nil {
				expected = n
			} else {
				why = at + " is " + value
			}
		case nodeSection + ".{":
			nodes++
		}
	})
	switch {
	case err != nil:
		return "", fmt.Errorf("read corosync's votes: %w", err)
	case why == "" && expected > 0 && expected < nodes:
		why = fmt.Sprintf("quorum.expected_votes is %d, of %d nodes", expected, nodes)
	}
	return why, nil
}

// nodeSection is the section of one node.
const nodeSection = "nodelist/node"

// walk reads corosync's configuration. It calls each for every setting, with the section that the setting is in, and
// with the key "{" or "}" where a section begins and ends.
func walk(file string, each func(section, key, value string)) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var sections []string
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "#"):
		case strings.HasSuffix(line, "{"):
			sections = append(sections, strings.TrimSpace(strings.TrimSuffix(line, "{")))
			each(strings.Join(sections, "/"), "{", "")
		case line == "}" && len(sections) > 0:
			each(strings.Join(sections, "/"), "}", "")
			sections = sections[:len(sections)-1]
		default:
			key, value, _ := strings.Cut(line, ":")
			each(strings.Join(sections, "/"), strings.TrimSpace(key), strings.TrimSpace(value))
		}
	}
	return nil
}
