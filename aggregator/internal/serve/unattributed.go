package serve

import (
	"context"
	"errors"
	"fmt"

	"github.com/cavra/cavra/aggregator/internal/access"
)

// ErrNotOperator says that only whoever runs the aggregator may see something.
var ErrNotOperator = errors.New("only an admin of the tenant " + access.DefaultTenant + ", who runs this aggregator, can see what names no tenant")

// Operates reports whether a principal answers for the aggregator itself, and
// not only for a tenant of it.
func Operates(p access.Principal) bool {
	return p.Tenant == access.DefaultTenant && p.Can(access.Admin)
}

// Unattributed lists what was refused before a key was found, and so belongs to
// no tenant: unreadable messages and unknown keys. It is ErrNotOperator for
// whoever does not operate the aggregator.
func (s *Service) Unattributed(ctx context.Context, p access.Principal, offset, limit uint32) (RefusedList, error) {
	if !Operates(p) {
		return RefusedList{}, ErrNotOperator
	}
	return s.Quarantine(ctx, "", offset, limit)
}

// CountUnattributed counts what Unattributed lists.
func (s *Service) CountUnattributed(ctx context.Context, p access.Principal) (uint64, error) {
	if !Operates(p) {
		return 0, ErrNotOperator
	}
	outcomes, err := s.cfg.Rows.Outcomes(ctx, "")
	if err != nil {
		return 0, fmt.Errorf("count what names no tenant: %w", err)
	}
	return byWord(outcomes)["refused"], nil
}
