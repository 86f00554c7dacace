// Logs everything that a trigger task is told, so that you see what there is before you build on it.
package task

import (
	"config"
	"fmt"
	"strings"
)

var keys = []string{
	"trigger_event",
	"request_id",
	"request_status",
	"previous_status",
	"template_id",
	"template_name",
	"app_id",
	"app_name",
	"requester_id",
	"requester_email",
	"requester_name",
	"justification",
	"run_id",
}

// Run is called once for each event.
func Run() (string, error) {
	lines := []string{"access_request." + config.Get("trigger_event")}
	for _, key := range keys {
		lines = append(lines, fmt.Sprintf("  %-16s %s", key, config.Get(key)))
	}
	return strings.Join(lines, "\n"), nil
}
