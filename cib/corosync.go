package cib

import (
	"fmt"
	"os"
	"strings"

	"github.com/pgrex/pgrex/model"
)

// CorosyncConf is where corosync has its configuration. Everybody may read it.
const CorosyncConf = "/etc/corosync/corosync.conf"

// RingAddresses reads the addresses of corosync's first ring from its configuration, by folded node name
// (corosync.conf(5), nodelist). A node without a name is known by its address, as to Pacemaker.
func RingAddresses(file string) (map[string]string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read corosync's ring addresses: %w", err)
	}
	addresses := map[string]string{}
	var sections []string
	var name, ring string
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "#"):
		case strings.HasSuffix(line, "{"):
			sections = append(sections, strings.TrimSpace(strings.TrimSuffix(line, "{")))
			name, ring = "", ""
		case line == "}" && len(sections) > 0:
			if strings.Join(sections, "/") == "nodelist/node" && ring != "" {
				if name == "" {
					name = ring
				}
				addresses[model.FoldNode(name)] = ring
			}
			sections = sections[:len(sections)-1]
		default:
			key, value, _ := strings.Cut(line, ":")
			switch value = strings.TrimSpace(value); strings.TrimSpace(key) {
			case "name":
				name = value
			case "ring0_addr":
				ring = value
			}
		}
	}
	return addresses, nil
}
