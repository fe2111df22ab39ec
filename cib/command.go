package cib

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/beevik/etree"

	"github.com/pgrex/pgrex/model"
)

// commandTimeout is for tools that only change the CIB. One that waits for the cluster gets a deadline from its caller.
const commandTimeout = 30 * time.Second

// Command is one of Pacemaker's tools with its arguments: a change of the cluster, as data. Those who show it before
// they run it show just what is run.
type Command struct {
	Path string
	Args []string
}

// SetProperty sets a cluster option, as maintenance-mode is one. The "=" keeps release 2.1.5 from taking a value that
// begins with "-" for an option.
func SetProperty(name, value string) Command {
	return Command{"crm_attribute", []string{"--type", "crm_config", "--name", name, "--update=" + value}}
}

// DeleteProperty leaves a cluster option at its default.
func DeleteProperty(name string) Command {
	return Command{"crm_attribute", []string{"--type", "crm_config", "--name", name, "--delete"}}
}

// SetMeta sets a meta attribute of a clone or a primitive. That restarts nothing.
func SetMeta(resource, name, value string) Command {
	return Command{"crm_resource", []string{"--resource", resource, "--meta", "--set-parameter", name, "--parameter-value", value}}
}

// DeleteMeta removes a meta attribute.
func DeleteMeta(resource, name string) Command {
	return Command{"crm_resource", []string{"--resource", resource, "--meta", "--delete-parameter", name}}
}

// SetParameter sets an agent's parameter. That restarts the resource, unless the cluster is in maintenance and is told
// to look again (Refresh) before it leaves it.
func SetParameter(resource, name, value string) Command {
	return Command{"crm_resource", []string{"--resource", resource, "--set-parameter", name, "--parameter-value", value}}
}

// DeleteParameter removes an agent's parameter; what SetParameter says holds for it, too.
func DeleteParameter(resource, name string) Command {
	return Command{"crm_resource", []string{"--resource", resource, "--delete-parameter", name}}
}

// Refresh makes Pacemaker forget what it knows of a resource and look again, on a node, or on all where node is "".
func Refresh(resource, node string) Command { return withNode("--refresh", resource, node) }

// Cleanup makes Pacemaker forget a resource's failures, on a node, or on all where node is "".
func Cleanup(resource, node string) Command { return withNode("--cleanup", resource, node) }

// banLifetime is how long a ban holds, should nobody be there to remove it: longer than what it is made for can take.
const banLifetime = "PT30M"

// Ban keeps a resource off a node, until ClearBan.
func Ban(resource, node string) Command {
	c := withNode("--ban", resource, node)
	c.Args = append(c.Args, "--lifetime="+banLifetime)
	return c
}

// BanPromoted keeps a clone from being promoted on a node, until ClearBan. Nothing is restarted.
func BanPromoted(clone, node string) Command {
	c := Ban(clone, node)
	c.Args = append(c.Args, "--promoted")
	return c
}

// ClearBan removes the constraints by which a resource was banned from a node, or moved to it.
func ClearBan(resource, node string) Command { return withNode("--clear", resource, node) }

func withNode(action, resource, node string) Command {
	args := []string{action, "--resource", resource}
	if node != "" {
		args = append(args, "--node", node)
	}
	return Command{"crm_resource", args}
}

// KeepAway makes pgrex's own location constraint, which keeps a primitive's clone from a node until LetBack. Other
// resources on the node go on (but see Client.AlsoStops), and the operator's constraints stay as they are.
func KeepAway(clone, primitive, node string) Command {
	return Command{"cibadmin", []string{"--create", "--scope", constraints, "--xml-text", text(keptAway(clone, primitive, node))}}
}

// LetBack removes the constraint of KeepAway.
func LetBack(primitive, node string) Command {
	return Command{"cibadmin", []string{"--delete", "--scope", constraints, "--xml-text", text(ownLocation(primitive, node))}}
}

// constraints is the section of the CIB with all constraints.
const constraints = "constraints"

// keptAway is the constraint of KeepAway, as XML.
func keptAway(clone, primitive, node string) *etree.Element {
	location := ownLocation(primitive, node)
	location.CreateAttr("rsc", clone)
	location.CreateAttr("score", "-INFINITY")
	return location
}

// ownLocation has the attributes that identify the constraint of KeepAway. The node is one of them, because the ids of
// two databases may be equal.
func ownLocation(primitive, node string) *etree.Element {
	location := etree.NewElement("rsc_location")
	location.CreateAttr("id", model.StopConstraint(primitive, node))
	location.CreateAttr("node", node)
	return location
}

// SetStandby takes a node out of service, or brings it back: its resources stop, or may run again.
func SetStandby(node string, on bool) Command {
	return Command{"crm_attribute", []string{"--node", node, "--name", "standby", fmt.Sprintf("--update=%t", on)}}
}

// DeleteStandby leaves a node in service.
func DeleteStandby(node string) Command {
	return Command{"crm_attribute", []string{"--node", node, "--name", "standby", "--delete"}}
}

// SetAttribute sets a transient node attribute, which lasts as long as the node's membership. The value "" removes it.
// If CIB_file names a file, crm_attribute changes the attribute there; attrd_updater would not.
func SetAttribute(node, name, value string) Command {
	return nodeAttribute(node, "reboot", name, value)
}

// SetNodeAttribute sets a node's permanent attribute; the value "" removes it.
func SetNodeAttribute(node, name, value string) Command {
	return nodeAttribute(node, "forever", name, value)
}

func nodeAttribute(node, lifetime, name, value string) Command {
	change := "--update=" + value
	if value == "" {
		change = "--delete"
	}
	return Command{"crm_attribute", []string{"--node", node, "--lifetime", lifetime, "--name", name, change}}
}

// String is the command as one types it.
func (c Command) String() string {
	words := make([]string, 0, len(c.Args)+1)
	for _, w := range append([]string{c.Path}, c.Args...) {
		if w == "" || strings.ContainsFunc(w, special) {
			w = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
		words = append(words, w)
	}
	return strings.Join(words, " ")
}

// special characters are those that a shell might take for something else.
func special(r rune) bool {
	return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_=./:,@%+", r)
}

// deletes reports whether the command only removes something by its name. If that is not there, crm_resource ends well in
// 2.1.5, and with exitNoSuch in 3.0.0 (seen).
func (c Command) deletes() bool {
	return c.Path != "cibadmin" && (slices.Contains(c.Args, "--delete") || slices.Contains(c.Args, "--delete-parameter"))
}

// constrains reports whether the command makes a constraint. It is no error if that is there already.
func (c Command) constrains() bool {
	return slices.Contains(c.Args, "--create") && slices.Contains(c.Args, constraints)
}

// Run runs the command to its end, or to the end of ctx, at the latest until commandTimeout is over. The error says
// what the tool said. For cibadmin, the error may also be ErrExists or ErrNoMatch.
func (c Command) Run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	if c.settles() {
		return c.wait(ctx)
	}
	return c.once(ctx)
}

// once is Run, for a command that does what it says.
func (c Command) once(ctx context.Context) error {
	begin := time.Now()
	r, err := call{path: c.Path, args: c.Args, limit: MaxSize}.run(ctx)
	err = explain(mayConnect, c.String(), r, err, begin)
	switch {
	case r.exit == exitNoSuch && c.deletes():
		return nil // it is gone already
	case r.exit == exitExists && c.constrains():
		return nil // it is there already
	case c.Path != "cibadmin":
	case r.exit == exitExists:
		return fmt.Errorf("%w: %w", ErrExists, err)
	case r.exit == exitNoSuch:
		return fmt.Errorf("%w: %w", ErrNoMatch, err)
	}
	return err
}
