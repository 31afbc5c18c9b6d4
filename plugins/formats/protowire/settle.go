package protowire

import (
	"errors"

	"github.com/cavra/cavra/schemas/predicate"

	"github.com/cavra/cavra/plugins/formats/content"
)

// Settle says why a walk ended before its message did: a finding by the format's
// rule for broken content or for limits, and a gap from at on. It returns errors
// of reading.
func Settle(v *content.Visit, err error, class, malformed string, at int64) error {
	rule, why := malformed, predicate.Malformed
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrMalformed):
	case errors.Is(err, ErrTruncated):
		why = predicate.Truncated
	case errors.Is(err, ErrDepth):
		rule, why = "model.limit", predicate.LimitDepth
	case errors.Is(err, ErrFields):
		rule, why = "model.limit", predicate.LimitMembers
	default:
		return err
	}
	v.Found(rule, class, at, err.Error())
	v.Unread(at, v.Size, why)
	v.Unread(v.Size, v.Size, why)
	return nil
}
