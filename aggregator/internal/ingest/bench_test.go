package ingest

import (
	"testing"
	"time"

	"github.com/cavra/cavra/aggregator/internal/embedded/clickhouse/enginetest"
)

// BenchmarkVerifiedIngest measures from the log to durable, committed rows, with
// the embedded broker, engine and control store: signed scans, every third with
// a finding and two imports.
func BenchmarkVerifiedIngest(b *testing.B) {
	const statements = 20_000
	var took time.Duration
	rounds := 0
	for b.Loop() {
		b.StopTimer()
		w := newWorld(b, enginetest.Library(b), 2)
		for p := range w.place.Partitions {
			one := newAgent(b, "one", "a")
			w.enrol(one)
			values := make([][]byte, statements/w.place.Partitions)
			for i := range values {
				values[i] = one.next().value
			}
			w.send(p, values...)
		}
		a := w.open()
		a.change(b, func(c *Config) { c.MaxWait = Default().MaxWait })
		b.StartTimer()
		began := time.Now()
		w.run(a)
		took += time.Since(began)
		rounds++
	}
	b.ReportMetric(float64(rounds*statements)/took.Seconds(), "reports/s")
}
