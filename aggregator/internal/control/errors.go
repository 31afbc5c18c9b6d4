package control

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// The conditions that a caller can act on.
var (
	// ErrNotFound: there is no such thing in this tenant.
	ErrNotFound = errors.New("not found")
	// ErrExists: the name is taken.
	ErrExists = errors.New("exists already")
	// ErrTokenUnknown, ErrTokenExpired and ErrTokenUsed: a join token buys
	// nothing. Whoever presented it is told of no difference.
	ErrTokenUnknown = errors.New("join token is not known")
	ErrTokenExpired = errors.New("join token has expired")
	ErrTokenUsed    = errors.New("join token has been used")
	// ErrKeyKnown: the public key is enrolled already, and a key belongs to
	// one epoch.
	ErrKeyKnown = errors.New("key is enrolled already")
	// ErrEpoch: the agent's present epoch is another one, or has no active key.
	ErrEpoch = errors.New("the agent is in another epoch")
	// ErrPlanTaken: another aggregator recorded a plan for the partition, or
	// moved it on. Ask OpenPlan again.
	ErrPlanTaken = errors.New("partition has another plan")
	// ErrClockBehind: the clock is behind that of the last plan by so much that what
	// is taken in now would be dropped as old once the clock is right.
	ErrClockBehind = errors.New("this machine's clock is far behind that of the last plan: set it, and what waits is taken in then")
	// ErrPlanLost: the plan is not the partition's open one, nor committed
	// lately. What was done for it must not count.
	ErrPlanLost = errors.New("plan is not the open one")
	// ErrForgotten: a statement was seen at the sequence, but what it was is
	// not remembered here. The statements table knows.
	ErrForgotten = errors.New("link is not remembered")
)

// SchemaError says that the database's schema and this program do not fit.
type SchemaError struct {
	Version int64
	Name    string
	Problem string
}

func (e *SchemaError) Error() string {
	return fmt.Sprintf("schema version %d (%s): %s", e.Version, e.Name, e.Problem)
}

// Retryable reports whether the same call may succeed later with nothing
// changed on this side: the engine was busy, restarting or out of reach.
func Retryable(err error) bool {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	if conflict(err) || errors.Is(err, ErrClockBehind) || errors.Is(err, driver.ErrBadConn) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return true
	}
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		// PostgreSQL, appendix A: connection, resources, operator, system.
		for _, class := range []string{"08", "53", "57", "58"} {
			if strings.HasPrefix(pg.Code, class) {
				return true
			}
		}
		return false
	}
	var lite *sqlite.Error
	if errors.As(err, &lite) {
		switch lite.Code() & 0xff {
		case sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN:
			return true
		}
		return false
	}
	var dial *pgconn.ConnectError
	var network net.Error
	return errors.As(err, &dial) || errors.As(err, &network)
}

// conflict reports whether the engine gave up a transaction in favour of
// another one.
func conflict(err error) bool {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		// Two transactions that cannot be put in an order, or a deadlock.
		return pg.Code == "40001" || pg.Code == "40P01"
	}
	var lite *sqlite.Error
	if errors.As(err, &lite) {
		code := lite.Code() & 0xff
		return code == sqlite3.SQLITE_BUSY || code == sqlite3.SQLITE_LOCKED
	}
	return false
}
