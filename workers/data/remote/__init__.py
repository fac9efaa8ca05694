"""Ways to fetch training files: HTTPS, buckets (S3, GCS) and datasets on the Hugging Face Hub."""
