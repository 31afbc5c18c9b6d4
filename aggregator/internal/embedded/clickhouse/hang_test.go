package clickhouse

import (
	"crypto/sha256"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// TestAnInsertThatHangsIsNoticed sends rows that never end.
func TestAnInsertThatHangsIsNoticed(t *testing.T) {
	hung := make(chan struct{})
	s := &server{
		dir: t.TempDir(), user: "u", password: sha256.Sum256([]byte("p")), slots: make(chan struct{}, 1), log: slog.New(slog.DiscardHandler),
		limits: limits{QueryBytes: 1 << 10, BodyBytes: 1 << 20, QueueWait: time.Second}, insertTime: time.Millisecond, hung: func() { close(hung) },
	}
	rows, end := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/?query=INSERT+INTO+t+FORMAT+Native", rows)
		r.SetBasicAuth("u", "p")
		s.ServeHTTP(httptest.NewRecorder(), r)
	}()
	<-hung
	if err := end.CloseWithError(io.ErrUnexpectedEOF); err != nil {
		t.Fatal(err)
	}
	<-done
}
