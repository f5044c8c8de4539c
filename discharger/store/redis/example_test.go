package redis_test

import (
	"context"
	"log"
	"os"

	"github.com/discharger/discharger/discharger/store/marker"
	"github.com/discharger/discharger/discharger/store/redis"
	"github.com/discharger/discharger/discharger/store/redis/conn"
)

func ExampleOpen() {
	password, err := os.ReadFile("/run/secrets/redis")
	if err != nil {
		log.Fatal(err)
	}
	tagKey, err := os.ReadFile("/run/secrets/redis-tag-key")
	if err != nil {
		log.Fatal(err)
	}
	s, err := redis.Open(context.Background(), redis.Config{
		Addrs:      []string{"sentinel-1:26379", "sentinel-2:26379", "sentinel-3:26379"},
		MasterName: "sessions",
		Access:     conn.Access{Username: "discharger", Password: password},
		TagKey:     tagKey,
		Durability: redis.DurabilityReplica,
		Marker:     marker.FileMarker("/var/lib/discharger/store-id"),
	})
	if err != nil {
		log.Fatal(err)
	}
	defer s.Close()
}
