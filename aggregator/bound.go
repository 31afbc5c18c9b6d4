package aggregator

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/cavra/cavra/aggregator/internal/clickhouse"
	"github.com/cavra/cavra/aggregator/internal/row"
)

// measureEvery is how often the embedded folder is measured.
const measureEvery = 30 * time.Second

// errFull says that the embedded folder has reached its bound. It passes when
// there is room again, so what waits for it stays in the broker, and then in
// the agents' spools.
var errFull = errors.New("the embedded folder has reached embedded.max_bytes: raise it, or shorten retention_days; until then nothing more is taken in, and nothing is deleted")

// bound keeps rows out of a folder that is full.
type bound struct {
	rows *clickhouse.DB
	full atomic.Bool
}

// Insert inserts, unless the folder is full.
func (b *bound) Insert(ctx context.Context, batch *row.Batch, token string) error {
	if b.full.Load() {
		return errFull
	}
	return b.rows.Insert(ctx, batch, token)
}

func retryable(err error) bool { return errors.Is(err, errFull) || clickhouse.Retryable(err) }

// measure holds the embedded folder to its bound until ctx ends.
func (a *Aggregator) measure(ctx context.Context) error {
	tick := time.NewTicker(measureEvery)
	defer tick.Stop()
	for {
		size, err := folderSize(a.cfg.Settings.Embedded.Dir)
		if err != nil {
			a.cfg.Log.WarnContext(ctx, "cannot measure the embedded folder", slog.Any("error", err))
		} else if full := size > a.cfg.Settings.Embedded.MaxBytes; a.rows.full.Swap(full) != full {
			a.cfg.Log.WarnContext(ctx, "the embedded folder's bound", slog.Bool("reached", full), slog.Int64("bytes", size))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// folderSize adds up the files of a folder. Files that go while it looks, as
// those of a merge do, do not count.
func folderSize(dir string) (int64, error) {
	var total int64
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil {
			total += info.Size()
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("measure %s: %w", dir, err)
	}
	return total, nil
}
