package metrics

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"

	"github.com/pgrex/pgrex/controller"
)

// ContentType is the media type of what Text returns.
const ContentType = string(expfmt.FmtText)

// databaseLabel says which of several databases on a host is meant.
const databaseLabel = "database"

// collector makes metrics of one status; of nil, where no daemon has answered, just that.
type collector struct {
	status   *controller.Status
	database string
}

// gatherer has the metrics of a status. Every one has the label database, unless that is empty.
func gatherer(status *controller.Status, database string) prometheus.Gatherer {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collector{status, database})
	return registry
}

// Text returns the metrics of a status in Prometheus' text format. A status of nil stands for a daemon that does not answer.
// database is the instance where the host has several databases, else "".
func Text(status *controller.Status, database string) ([]byte, error) {
	gathered, err := gatherer(status, database).Gather()
	if err != nil {
		return nil, fmt.Errorf("gather the metrics: %w", err)
	}
	var text bytes.Buffer
	for _, f := range gathered {
		if _, err := expfmt.MetricFamilyToText(&text, f); err != nil {
			return nil, fmt.Errorf("write the metric %s: %w", f.GetName(), err)
		}
	}
	return text.Bytes(), nil
}

// WriteFile replaces a file of node_exporter's textfile collector by what Text returns, in one step, readable for everybody.
// The collector does not read the file that it is written to first. Root may call it in a folder of another user's.
func WriteFile(path string, status *controller.Status, database string) error {
	text, err := Text(status, database)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("write the metrics to %s: %w", path, err)
	}
	_, err = f.Write(text)
	err = errors.Join(err, f.Chmod(0o644), f.Close()) // by the open file: its name may lead elsewhere by now
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write the metrics to %s: %w", path, err), os.Remove(f.Name()))
	}
	return nil
}

// Describe implements prometheus.Collector.
func (c collector) Describe(descriptions chan<- *prometheus.Desc) {
	for _, f := range append([]family{up}, families...) {
		descriptions <- c.describe(f)
	}
}

func (c collector) describe(f family) *prometheus.Desc {
	var constant prometheus.Labels
	if c.database != "" {
		constant = prometheus.Labels{databaseLabel: c.database}
	}
	return prometheus.NewDesc(f.name, f.help, f.labels, constant)
}

// Collect implements prometheus.Collector.
func (c collector) Collect(metrics chan<- prometheus.Metric) {
	metrics <- prometheus.MustNewConstMetric(c.describe(up), up.kind, truth(c.status != nil))
	if c.status == nil {
		return
	}
	for _, f := range families {
		described := c.describe(f)
		if f.name == lookDuration {
			durations(*c.status, described, metrics)
			continue
		}
		f.samples(*c.status, func(value float64, labels ...string) {
			for i, l := range labels {
				labels[i] = strings.ToValidUTF8(l, "\uFFFD") // or there would be no metric at all
			}
			metrics <- prometheus.MustNewConstMetric(described, f.kind, value, labels...)
		})
	}
}

func durations(s controller.Status, described *prometheus.Desc, metrics chan<- prometheus.Metric) {
	for _, l := range s.Looks {
		buckets := map[float64]uint64{}
		for _, b := range l.Buckets {
			buckets[b.AtMost] = b.Count
		}
		metrics <- prometheus.MustNewConstHistogram(described, l.Count, l.Seconds, buckets, string(l.Source))
	}
}

// Document is docs/metrics.md.
func Document() string {
	var b strings.Builder
	b.WriteString(`# Metrics

` + "`pgrex metrics`" + ` prints these metrics in Prometheus' text format; [monitoring.md](monitoring.md) shows how Prometheus gets them. They are
those of one host: what its daemon knew at its last look. What is unknown has no sample. If no daemon answers, ` + "`pgrex_up`" + ` is 0, and
there is nothing else.

Names and labels are stable: metrics are added, never changed. With ` + "`--instance NAME`" + `, every metric also has the label ` + "`database`" + `, with
that name.

| metric | type | labels | what it is |
|---|---|---|---|
`)
	for _, f := range append([]family{up}, families...) {
		kind := map[prometheus.ValueType]string{gauge: "gauge", counter: "counter", 0: "histogram"}[f.kind]
		labels := ""
		if len(f.labels) > 0 {
			labels = "`" + strings.Join(f.labels, "`, `") + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", f.name, kind, labels, f.help)
	}
	return b.String()
}
