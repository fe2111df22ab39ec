// Package manual writes the manual pages of a command line: one for each command, from what its help says.
//
// It must not know any command by name. It fails where a command has no exit statuses or no examples to show, so that
// no page lacks them.
package manual
