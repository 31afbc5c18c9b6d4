package main

import (
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// progress shows how far a scan is, on a terminal and nowhere else. A nil bar
// shows nothing.
type progress struct {
	w     io.Writer
	bar   *progressbar.ProgressBar
	on    bool
	files int
	ended atomic.Int64
}

func newProgress(w io.Writer, quiet bool) *progress {
	f, ok := w.(*os.File)
	return &progress{w: w, on: ok && !quiet && term.IsTerminal(int(f.Fd()))}
}

func (p *progress) start(files int, bytes int64) {
	p.files = files
	if !p.on || files == 0 {
		return
	}
	const step = 100 * time.Millisecond
	// A file counts a byte more than it has, so that empty ones move the bar.
	p.bar = progressbar.NewOptions64(bytes+int64(files),
		progressbar.OptionSetWriter(p.w), progressbar.OptionShowBytes(true), progressbar.OptionThrottle(step),
		progressbar.OptionClearOnFinish(), progressbar.OptionFullWidth(), progressbar.OptionSetDescription(p.text()))
}

func (p *progress) text() string { return fmt.Sprintf("%d/%d files", p.ended.Load(), p.files) }

// bytes may be called from several goroutines. What cannot be shown is lost:
// the bar is no result.
func (p *progress) bytes(n int64) {
	if p.bar != nil {
		_ = p.bar.Add64(n)
	}
}

func (p *progress) done(files int64) {
	p.ended.Add(files)
	if p.bar != nil {
		p.bar.Describe(p.text())
		_ = p.bar.Add64(files)
	}
}

func (p *progress) finish() {
	if p.bar != nil {
		_ = p.bar.Clear()
	}
}
