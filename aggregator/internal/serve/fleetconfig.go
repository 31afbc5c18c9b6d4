package serve

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/cavra/cavra/aggregator/internal/access"
	"github.com/cavra/cavra/aggregator/internal/control"
	"github.com/cavra/cavra/sdk/remoteconfig"
)

// SettingsError says that no aggregator may set this on an agent.
type SettingsError struct{ Refusal *remoteconfig.Refusal }

func (e *SettingsError) Error() string { return e.Refusal.Unwrap().Error() }

// SetFleetConfig sets something on one of the principal's agents, or on all that
// have nothing of their own; with nil, it takes back what was set. It returns the
// version of the change.
func (s *Service) SetFleetConfig(ctx context.Context, p access.Principal, agent string, set *FleetSettings) (FleetConfig, error) {
	c := control.FleetConfig{Agent: agent, CreatedBy: p.Name}
	if set != nil {
		raw, err := json.Marshal(set)
		if err != nil {
			return FleetConfig{}, fmt.Errorf("read settings: %w", err)
		}
		parsed, err := remoteconfig.ParseSettings(raw)
		var why *remoteconfig.Refusal
		if errors.As(err, &why) {
			return FleetConfig{}, &SettingsError{why}
		}
		canonical, err := json.Marshal(parsed)
		if err != nil {
			return FleetConfig{}, fmt.Errorf("write settings: %w", err)
		}
		c.Settings = string(canonical)
	}
	var err error
	if c.Version, err = s.cfg.Control.SetFleetConfig(ctx, p.Tenant, c); err != nil {
		return FleetConfig{}, err
	}
	c.CreatedAt = s.cfg.Now()
	return fleetConfigOf(c)
}

// FleetConfigs lists what was set on a tenant's agents, the latest first, from
// before a version on; 0 is from the latest.
func (s *Service) FleetConfigs(ctx context.Context, tenant string, before uint64, limit uint32) (FleetConfigList, error) {
	limit = bounded(limit)
	rows, err := s.cfg.Control.FleetConfigs(ctx, tenant, before, int(limit))
	if err != nil {
		return FleetConfigList{}, err
	}
	list := FleetConfigList{Configurations: make([]FleetConfig, len(rows))}
	for i, row := range rows {
		if list.Configurations[i], err = fleetConfigOf(row); err != nil {
			return FleetConfigList{}, err
		}
	}
	if n := len(rows); n == int(limit) {
		list.Next = rows[n-1].Version
	}
	return list, nil
}

func fleetConfigOf(c control.FleetConfig) (FleetConfig, error) {
	out := FleetConfig{Version: c.Version, Agent: c.Agent, Cleared: c.Settings == "", CreatedBy: c.CreatedBy, CreatedAt: c.CreatedAt.UTC()}
	if out.Cleared {
		return out, nil
	}
	if err := json.Unmarshal([]byte(c.Settings), &out.Settings); err != nil {
		return FleetConfig{}, fmt.Errorf("read configuration %d: %w", c.Version, err)
	}
	return out, nil
}
