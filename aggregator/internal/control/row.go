package control

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"database/sql/driver"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/cavra/cavra/schemas/predicate"
)

// querier is a database or a transaction.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

type scanner func(dest ...any) error

// queryAll reads every row of a query.
func queryAll[T any](ctx context.Context, q querier, read func(scanner, *T) error, query string, args ...any) ([]T, error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close() //nolint:errcheck // rows.Err says it
	var out []T
	for rows.Next() {
		var v T
		if err := read(rows.Scan, &v); err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, rows.Err()
}

// queryOne reads the first row of a query, or returns ErrNotFound.
func queryOne[T any](ctx context.Context, q querier, read func(scanner, *T) error, query string, args ...any) (T, error) {
	all, err := queryAll(ctx, q, read, query, args...)
	if err != nil || len(all) == 0 {
		var none T
		if err == nil {
			err = ErrNotFound
		}
		return none, err
	}
	return all[0], nil
}

// changed runs a statement and returns how many rows it changed.
func changed(ctx context.Context, tx *sql.Tx, query string, args ...any) (int64, error) {
	res, err := tx.ExecContext(ctx, query, args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

func (s *Store) millis() int64 { return s.now().UnixMilli() }

// moment reads a column of time, whose 0 is the zero time.
func moment(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

func millisOf(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// digestValue writes a digest as its 32 bytes.
type digestValue predicate.Digest

// Value implements driver.Valuer.
func (v digestValue) Value() (driver.Value, error) {
	d := predicate.Digest(v)
	if err := d.Validate(); err != nil {
		return nil, err
	}
	return hex.DecodeString(d.Hex())
}

// digestColumn reads a digest from its 32 bytes.
type digestColumn struct{ to *predicate.Digest }

// Scan implements sql.Scanner.
func (c digestColumn) Scan(src any) error {
	b, ok := src.([]byte)
	if !ok || len(b) != sha256.Size {
		return fmt.Errorf("digest of %T: want %d bytes", src, sha256.Size)
	}
	*c.to = predicate.DigestFromSum(b)
	return nil
}

// maybeDigest reads a digest that may be null, which is the empty one.
type maybeDigest struct{ to *predicate.Digest }

// Scan implements sql.Scanner.
func (c maybeDigest) Scan(src any) error {
	if src == nil {
		*c.to = ""
		return nil
	}
	return digestColumn(c).Scan(src)
}

// nullDigest writes a digest, the empty one as null.
func nullDigest(d predicate.Digest) any {
	if d == "" {
		return nil
	}
	return digestValue(d)
}
