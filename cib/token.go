package cib

import (
	"cmp"
	"strconv"
	"strings"

	"github.com/beevik/etree"

	"github.com/pgrex/pgrex/model"
)

// Where crm_config sets a cluster option: the set that crm_attribute uses. It takes precedence over all others.
const (
	bootstrapSet      = "cib-bootstrap-options"
	maintenanceOption = "maintenance-mode"
)

// CreateToken takes the lock of a database's operations: it makes the token, in a set of its own. If there is a token
// already, whatever it holds, CreateToken changes nothing, and the error is ErrExists.
func CreateToken(primitive string, t model.Token) Command {
	return Command{"cibadmin", []string{"--create", "--scope", "crm_config", "--xml-text", text(tokenSet(primitive, t))}}
}

// ChangeToken replaces the token from with to. If the token is not exactly from, it changes nothing, and the error is
// ErrNoMatch.
func ChangeToken(primitive string, from, to model.Token) Command {
	pair := tokenPairPath(primitive) + "[@value=" + literal(from.String()) + "]"
	return Command{"cibadmin", []string{"--modify", "--xpath", pair, "--xml-text", text(tokenPair(primitive, to))}}
}

// DeleteToken removes the token if it is exactly t. Otherwise it changes nothing, without an error: cibadmin succeeds
// if there is nothing to delete (seen with 2.1.5 and 3.0.0). A caller that has to know reads the CIB again.
func DeleteToken(primitive string, t model.Token) Command {
	set := "//crm_config/cluster_property_set[@id=" + literal(model.TokenName(primitive)) + "]" +
		"[nvpair/@value=" + literal(t.String()) + "]"
	return Command{"cibadmin", []string{"--delete", "--xpath", set}}
}

// SetMaintenance switches maintenance-mode and sets the token to t, in one change of the CIB. It requires a token with
// t's own Value, in any phase. Without that token it changes nothing, and the error is ErrNoMatch: the operation was
// taken over or undone elsewhere. The zero value of at is for a cluster that does not set maintenance-mode.
//
// maintenance-mode belongs to the whole cluster, and a token to one database. While the operation of another database
// is in maintenance-mode, SetMaintenance does not switch it on, and the error is ErrNoMatch: the first operation to
// leave would leave for both. The same holds if maintenance-mode is on without an operation: an operator has set it,
// and the operation would leave it.
func SetMaintenance(on bool, at model.OptionAt, primitive string, t model.Token) Command {
	at = orBootstrap(at)
	own := "//crm_config[" + strings.TrimPrefix(tokenPairPath(primitive), "//crm_config/") +
		"[contains(concat(@value, ' '), " + literal(" value="+t.Value+" ") + ")]]"
	if on {
		mine := "[@name=" + literal(model.TokenName(primitive)) + "]"
		own += "[not(" + inMaintenance + "[@name!=" + literal(model.TokenName(primitive)) + "])]" +
			"[not(cluster_property_set/nvpair[@id=" + literal(at.ID) + "]" + trueValue + ") or " + inMaintenance + mine + "]"
	}
	config := etree.NewElement("crm_config")
	config.AddChild(optionSet(at.Set, optionPair(at.ID, maintenanceOption, strconv.FormatBool(on))))
	config.AddChild(tokenSet(primitive, t))
	return Command{"cibadmin", []string{"--modify", "--xpath", own, "--xml-text", text(config)}}
}

// inMaintenance is an XPath below crm_config to the tokens of operations that are in maintenance-mode.
var inMaintenance = "cluster_property_set/nvpair[starts-with(@name, " + literal(model.TokenName("")) + ")]" +
	"[contains(concat(@value, ' '), " + literal(" phase="+string(model.PhaseMaintenance)+" ") + ")]"

// trueValue is the XPath condition that Pacemaker takes the value of a pair for true (crm_str_to_boolean).
const trueValue = "[contains(' true on yes y 1 ', concat(' ', translate(@value, 'TRUEONYS', 'trueonys'), ' '))]"

// DropMaintenance returns maintenance-mode to its default if it is set to "false" there. Otherwise it changes nothing,
// without an error; see DeleteToken. It fails if another set refers to the pair.
func DropMaintenance(at model.OptionAt) Command {
	at = orBootstrap(at)
	pair := "//crm_config/cluster_property_set[@id=" + literal(at.Set) + "]" +
		"/nvpair[@id=" + literal(at.ID) + "][@name='" + maintenanceOption + "'][@value='false']"
	return Command{"cibadmin", []string{"--delete", "--xpath", pair}}
}

// orBootstrap is where maintenance-mode is set, or where crm_attribute would set it.
func orBootstrap(at model.OptionAt) model.OptionAt {
	return cmp.Or(at, model.OptionAt{Set: bootstrapSet, ID: bootstrapSet + "-" + maintenanceOption})
}

// tokenID is the id of the pair that holds the token.
func tokenID(primitive string) string { return model.TokenName(primitive) + "-token" }

// tokenPairPath is an XPath to that pair.
func tokenPairPath(primitive string) string {
	return "//crm_config/cluster_property_set[@id=" + literal(model.TokenName(primitive)) + "]" +
		"/nvpair[@id=" + literal(tokenID(primitive)) + "]"
}

// tokenSet is the set that holds the token.
func tokenSet(primitive string, t model.Token) *etree.Element {
	return optionSet(model.TokenName(primitive), tokenPair(primitive, t))
}

func tokenPair(primitive string, t model.Token) *etree.Element {
	return optionPair(tokenID(primitive), model.TokenName(primitive), t.String())
}

func optionSet(id string, pair *etree.Element) *etree.Element {
	set := etree.NewElement("cluster_property_set")
	set.CreateAttr("id", id)
	set.AddChild(pair)
	return set
}

func optionPair(id, name, value string) *etree.Element {
	pair := etree.NewElement("nvpair")
	pair.CreateAttr("id", id)
	pair.CreateAttr("name", name)
	pair.CreateAttr("value", value)
	return pair
}

// text is an element as XML.
func text(e *etree.Element) string {
	document := etree.NewDocument()
	document.SetRoot(e)
	text, _ := document.WriteToString() // memory takes everything
	return text
}

// literal is a text as an XPath expression. XPath 1.0 has no escapes: a text with both quotes is put together.
func literal(text string) string {
	switch {
	case !strings.Contains(text, "'"):
		return "'" + text + "'"
	case !strings.Contains(text, `"`):
		return `"` + text + `"`
	}
	return "concat('" + strings.ReplaceAll(text, "'", `', "'", '`) + "')"
}

// optionAt finds where crm_config sets an option without a rule, as far as cibadmin can address that place: in the set
// of the highest precedence that has it. The zero value means nowhere.
func (d *document) optionAt(name string) model.OptionAt {
	config := child(d.configuration, "crm_config")
	for _, s := range d.sets([]*etree.Element{config}, "cluster_property_set", bootstrapSet) {
		for pair := range children(s.el, "nvpair") {
			to := d.follow(pair)
			if s.conditional || to == nil || cmp.Or(attr(pair, "name"), attr(to, "name")) != name || !d.spend(1) {
				continue
			}
			if set := to.Parent(); set.Tag == "cluster_property_set" && set.Parent() == config {
				return model.OptionAt{Set: attr(set, "id"), ID: attr(to, "id")}
			}
		}
	}
	return model.OptionAt{}
}
