// Package web answers Prometheus and load balancers over HTTP: /metrics, and health checks under the names that Patroni's have.
//
// It knows what the daemon says over its unix socket and nothing else, and has no power over anything. What a check answers is
// decided in one pure function (Decide). When in doubt it answers 503: a load balancer must not send a write to a host that is not
// confirmed as primary.
//
// It fails closed: without a daemon, or with an old look, no check succeeds. Clients are limited in number, size and time, and
// however many ask, the daemon is asked at most a few times a second.
package web
