// Decodes the objects of the Prometheus operator with its own types: a JSON list on stdin; refuses unknown fields.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"sigs.k8s.io/yaml"
)

func main() {
	var objects []json.RawMessage
	check(json.NewDecoder(os.Stdin).Decode(&objects))
	for _, object := range objects {
		var meta struct{ Kind string }
		check(json.Unmarshal(object, &meta))
		kinds := map[string]any{
			"PrometheusRule": &monitoring.PrometheusRule{},
			"ServiceMonitor": &monitoring.ServiceMonitor{},
		}
		into, known := kinds[meta.Kind]
		if !known {
			check(fmt.Errorf("unknown kind: %q", meta.Kind))
		}
		check(yaml.UnmarshalStrict(object, into))
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
