// Package fakes has what the tests of several operations need: a cluster of three, a primary, Pacemaker's tools that
// only note what they are told, an engine on a state folder of its own, and an end of its process wherever a test wants
// it.
//
// It must not be imported by anything but tests. It fails the test that calls it.
package fakes
