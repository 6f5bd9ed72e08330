output "schedule_arn" {
  description = "The schedule."
  value       = aws_scheduler_schedule.this.arn
}

output "event" {
  description = "What it sends; Scheduler puts the time in place of its words."
  value       = local.body
}
