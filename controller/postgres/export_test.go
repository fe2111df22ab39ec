package postgres

// Classify is for the test that has real servers fail.
var Classify = classify
