"""Raw pages to clean documents, a vocabulary and packed token shards. Free of torch."""
