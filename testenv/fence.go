package testenv

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strings"
	"time"
)

const fenceMetadata = `<?xml version="1.0"?>
<resource-agent name="fence_rexlab" shortdesc="Fence agent of the lab">
  <longdesc>Cuts the power of the lab's hosts, and gives it back, through the lab process.</longdesc>
  <vendor-url></vendor-url>
  <parameters>
    <parameter name="action" unique="0" required="1">
      <getopt mixed="-o"/><content type="string" default="off"/><shortdesc lang="en">What to do</shortdesc>
    </parameter>
    <parameter name="plug" unique="0" required="0">
      <getopt mixed="-n"/><content type="string"/><shortdesc lang="en">The host</shortdesc>
    </parameter>
  </parameters>
  <actions>
    <action name="on" automatic="0"/><action name="off"/><action name="reboot"/><action name="status"/>
    <action name="list"/><action name="monitor"/><action name="metadata"/><action name="validate-all"/>
  </actions>
</resource-agent>
`

// fenceMain is the fence agent. It follows the fence agents' convention: options as lines on standard input; status 2
// means that a host is off.
func fenceMain(in io.Reader, out, errs io.Writer) int {
	action, host := "off", ""
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		name, value, _ := strings.Cut(strings.TrimSpace(lines.Text()), "=")
		switch name {
		case "action", "option":
			action = value
		case "plug", "port", "nodename":
			if value != "" {
				host = value
			}
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	status, err := fence(ctx, newControlClient(fenceSocket), action, host, out)
	if err != nil {
		fmt.Fprintf(errs, "fence_rexlab: %s %s: %v\n", action, host, err)
		return 1
	}
	return status
}

func fence(ctx context.Context, lab *controlClient, action, host string, out io.Writer) (int, error) {
	switch action {
	case "metadata", "meta-data":
		fmt.Fprint(out, fenceMetadata)
		return 0, nil
	case "validate-all":
		return 0, nil
	case "monitor":
		_, err := lab.hosts(ctx)
		return 0, err
	case "list", "status":
		return fenceStatus(ctx, lab, action, host, out)
	case "off", "on":
		return 0, lab.order(ctx, order{Verb: action, Host: host})
	case "reboot":
		if err := lab.order(ctx, order{Verb: "off", Host: host}); err != nil {
			return 0, err
		}
		return 0, lab.order(ctx, order{Verb: "on", Host: host})
	}
	return 0, fmt.Errorf("no action %q", action)
}

func fenceStatus(ctx context.Context, lab *controlClient, action, host string, out io.Writer) (int, error) {
	const isOff = 2
	states, err := lab.hosts(ctx)
	if err != nil {
		return 0, err
	}
	for _, s := range states {
		if action == "list" {
			fmt.Fprintf(out, "%s,\n", s.Name)
		} else if strings.EqualFold(s.Name, host) {
			if !s.On {
				return isOff, nil
			}
			return 0, nil
		}
	}
	if action == "list" {
		return 0, nil
	}
	return 0, fmt.Errorf("no host %q", host)
}
