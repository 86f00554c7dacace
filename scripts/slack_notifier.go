// Tells a Slack channel what happened to a request. Needs the secret SLACK_WEBHOOK: the URL of an incoming webhook.
//
// As a trigger task it tells of every change, as the task of an integration of the events that this is bound to.
package task

import (
	"bytes"
	"config"
	"encoding/json"
	"fmt"
	"idp"
	"net/http"
	"secrets"
	"strings"
	"time"
)

// Slack's own escapes: what people write must not become a link or a mention.
var escaped = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")

// Run is called once for each event.
func Run() (string, error) {
	event := config.Get("trigger_event")
	if event == "" {
		event = "submitted"
	}
	approvers, err := idp.GetAccessRequestApprovers(config.Get("request_id"))
	if err != nil {
		return "", err
	}
	emails := make([]string, len(approvers))
	for i, approver := range approvers {
		emails[i] = approver.Email
	}
	text := fmt.Sprintf("*%s*: %s, requested by %s", config.Get("template_name"), event, config.Get("requester_email"))
	if len(emails) > 0 {
		text += fmt.Sprintf(" (asked: %s)", strings.Join(emails, ", "))
	}
	body, err := json.Marshal(map[string]string{"text": escaped.Replace(text)})
	if err != nil {
		return "", err
	}
	client := http.Client{Timeout: 10 * time.Second}
	answer, err := client.Post(secrets.Get("SLACK_WEBHOOK"), "application/json", bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	if answer.StatusCode >= 300 {
		// An error, so that the run fails and may be repeated.
		return "", fmt.Errorf("Slack answered %s", answer.Status)
	}
	return "Slack answered " + answer.Status, nil
}
