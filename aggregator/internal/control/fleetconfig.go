package control

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// FleetConfig is one version of what an administrator has set on agents.
type FleetConfig struct {
	Version uint64
	// Agent is the one that it is for; empty for all that have none of their own.
	Agent string
	// Settings are JSON; empty where what was set before is taken back.
	Settings  string
	CreatedBy string
	CreatedAt time.Time
}

// SetFleetConfig adds a version and returns its number. An agent that the tenant
// has not is ErrNotFound. Version and CreatedAt are set by the store.
func (s *Store) SetFleetConfig(ctx context.Context, tenant string, c FleetConfig) (uint64, error) {
	var version uint64
	err := s.write(ctx, func(tx *sql.Tx) error {
		// The update changes nothing; it holds the tenant's row, so that versions
		// follow each other.
		n, err := changed(ctx, tx, `UPDATE tenants SET name = name WHERE id = $1
AND ($2 = '' OR EXISTS (SELECT 1 FROM agents AS a WHERE a.tenant = $1 AND a.id = $2))`, tenant, c.Agent)
		if err == nil && n == 0 {
			err = ErrNotFound
		}
		if err != nil {
			return err
		}
		if version, err = queryOne(ctx, tx, readCount, `SELECT COALESCE(MAX(version), 0) + 1 FROM fleet_configs WHERE tenant = $1`, tenant); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO fleet_configs (tenant, version, agent, settings, created_by, created_at) VALUES ($1, $2, $3, $4, $5, $6)`,
			tenant, version, c.Agent, c.Settings, c.CreatedBy, s.millis())
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("set configuration: %w", err)
	}
	return version, nil
}

func readCount(scan scanner, n *uint64) error { return scan(n) }

func readFleetConfig(scan scanner, c *FleetConfig) error {
	var created int64
	err := scan(&c.Version, &c.Agent, &c.Settings, &c.CreatedBy, &created)
	c.CreatedAt = moment(created)
	return err
}

const fleetConfigColumns = `version, agent, settings, created_by, created_at`

// FleetConfigs lists what was set, the latest first, from before a version on; 0
// is from the latest.
func (s *Store) FleetConfigs(ctx context.Context, tenant string, before uint64, limit int) ([]FleetConfig, error) {
	out, err := queryAll(ctx, s.read, readFleetConfig, `SELECT `+fleetConfigColumns+` FROM fleet_configs
WHERE tenant = $1 AND ($2 = 0 OR version < $2) ORDER BY version DESC LIMIT $3`, tenant, before, limit)
	if err != nil {
		return nil, fmt.Errorf("list configurations: %w", err)
	}
	return out, nil
}

// WantedConfig is what holds for an agent: its own settings, else those of all,
// under the version of the last change that could concern it. Version 0 is
// nothing.
func (s *Store) WantedConfig(ctx context.Context, tenant, agent string) (FleetConfig, error) {
	var out FleetConfig
	err := s.snapshot(ctx, func(tx *sql.Tx) error {
		for _, of := range []string{"", agent} {
			c, err := queryOne(ctx, tx, readFleetConfig, `SELECT `+fleetConfigColumns+` FROM fleet_configs
WHERE tenant = $1 AND agent = $2 ORDER BY version DESC LIMIT 1`, tenant, of)
			if errors.Is(err, ErrNotFound) {
				continue
			}
			if err != nil {
				return err
			}
			version := max(out.Version, c.Version)
			if c.Settings != "" || out.Version == 0 {
				out = c
			}
			out.Version = version
		}
		return nil
	})
	if err != nil {
		return FleetConfig{}, fmt.Errorf("find the configuration of agent %q: %w", agent, err)
	}
	return out, nil
}
