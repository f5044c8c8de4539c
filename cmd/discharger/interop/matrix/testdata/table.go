//go:build ignore

// This program prints the routes of the gateway's table, one JSON object a line.
// It runs in the main module, which this one does not depend on.
package main

import (
	"encoding/json"
	"log"
	"os"

	"github.com/discharger/discharger/discharger/gateway/matrix"
)

func main() {
	out := json.NewEncoder(os.Stdout)
	for _, r := range matrix.Routes() {
		if err := out.Encode(map[string]any{
			"method": r.Method, "pattern": r.Pattern, "public": r.Public, "opaque": r.Effect == matrix.Opaque,
			"limited": r.Narrow.Has(matrix.Limited), "read_only": r.Narrow.Has(matrix.ReadOnly), "in_room": r.Narrow.Has(matrix.InRoom),
		}); err != nil {
			log.Fatal(err)
		}
	}
}
