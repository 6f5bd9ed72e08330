output "job" {
  description = "The job of Cloud Scheduler."
  value       = google_cloud_scheduler_job.this.id
}
