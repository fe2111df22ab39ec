// Package fakes has what the tests of several operations need: a cluster of three, a primary, and Pacemaker's tools that only
// note what they are told.
//
// It must not be imported by anything but tests. It fails the test that calls it.
package fakes
